//! What apps look like, inside the report's one file.

use std::{collections::BTreeMap, path::Path};

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::{Arm, Row, TrialSpec};

/// Bytes of pictures that a report may hold, as they stand in it.
const BUDGET: usize = 12 * 1024 * 1024;

/// Pictures by brief and arm, as `data:` addresses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pictures {
    shown: BTreeMap<(String, String), String>,
    /// Pictures that are there and did not fit.
    pub(super) left_out: usize,
}

impl Pictures {
    /// The first answers' pictures, as many as the budget holds: base and tuned of each brief before other arms, in the
    /// order of the trial. A picture that is gone is none.
    pub(super) fn load(spec: &TrialSpec, rows: &[Row], folder: &Path) -> Self {
        Self::within(BUDGET, spec, rows, folder)
    }

    fn within(budget: usize, spec: &TrialSpec, rows: &[Row], folder: &Path) -> Self {
        let main = |arm: &str| arm == Arm::BASE || arm == Arm::TUNED;
        let mut wanted: Vec<(bool, usize, &Row)> = rows
            .iter()
            .filter(|row| row.sample == 0)
            .filter_map(|row| {
                let place = spec.briefs.iter().position(|brief| brief.id.as_str() == row.brief)?;
                Some((!main(&row.arm), place, row))
            })
            .collect();
        wanted.sort_by_key(|(later, place, row)| (*later, *place, row.arm.clone()));
        let (mut pictures, mut room) = (Self::default(), budget);
        for (.., row) in wanted {
            let Some(bytes) = row.picture().and_then(|name| std::fs::read(folder.join(name)).ok()) else {
                continue;
            };
            let address = format!("data:image/webp;base64,{}", BASE64_STANDARD.encode(bytes));
            if address.len() > room {
                pictures.left_out += 1;
                continue;
            }
            room -= address.len();
            pictures.shown.insert((row.brief.clone(), row.arm.clone()), address);
        }
        pictures
    }

    pub(super) fn of(&self, row: &Row) -> Option<&str> {
        let first = row.sample == 0;
        first.then(|| self.shown.get(&(row.brief.clone(), row.arm.clone())))?.map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::fixtures::{BASE_TUNED, GOOD, POOR, spec, uniform};

    #[test]
    fn pictures_come_in_order_until_the_budget_is_spent() {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(3, 1, &BASE_TUNED);
        spec.samples = 2;
        spec.arms.push(Arm::new("other", "m"));
        let mut rows = uniform(&spec, POOR, GOOD);
        for (i, row) in rows.iter_mut().enumerate() {
            let (wide, narrow) = (format!("{i}-1280.webp"), format!("{i}-390.webp"));
            std::fs::write(folder.path().join(&wide), [7; 30]).unwrap();
            row.evidence = serde_json::json!({"browser": {"screenshots": [narrow, wide]}});
        }
        rows[0].evidence = serde_json::json!({"browser": {"screenshots": ["../0-1280.webp"]}});
        rows[1].evidence = serde_json::Value::Null;
        std::fs::remove_file(folder.path().join("6-1280.webp")).unwrap();
        // 23 letters before 40 of base64.
        let found = Pictures::within(3 * 63 + 62, &spec, &rows, folder.path());
        let shown: Vec<(&str, &str)> = found.shown.keys().map(|(b, a)| (b.as_str(), a.as_str())).collect();
        assert_eq!(shown, [("dashboard-01-0", "tuned"), ("wizard-02-0", "base"), ("wizard-02-0", "tuned")]);
        assert_eq!(found.left_out, 3);
        assert!(found.of(&rows[7]).unwrap().starts_with("data:image/webp;base64,BwcH"));
        assert_eq!((found.of(&rows[0]), found.of(&rows[10])), (None, None), "no file, and a second sample");
    }
}
