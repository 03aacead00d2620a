//! Pages of lists: `limit`, `after`, `order`.

use hone::model::wire::{Identified, Page};

use super::extract::Pairs;
use crate::error::ApiError;

/// Cuts a page out of `items`, which are in the order that the client sees.
///
/// `after` is exclusive. A client that ignores a wrong `after` or `limit` would loop or lose items, so both are refused.
pub fn cut<T: Identified>(
    items: Vec<T>,
    query: &Pairs,
    default: usize,
    most: usize,
) -> Result<Page<T>, ApiError> {
    let limit = limit(query, default, most)?;
    let start = match query.get("after").filter(|after| !after.is_empty()) {
        None => 0,
        Some(after) => match items.iter().position(|item| item.id() == after) {
            Some(at) => at + 1,
            None => {
                return Err(ApiError::bad_param(
                    "after",
                    format!("`after`: nothing here has the id `{after}`"),
                ));
            }
        },
    };
    let more = items.len() > start + limit;
    Ok(Page::new(items.into_iter().skip(start).take(limit).collect(), more))
}

fn limit(query: &Pairs, default: usize, most: usize) -> Result<usize, ApiError> {
    let Some(text) = query.get("limit") else { return Ok(default) };
    match text.parse::<usize>() {
        Ok(limit) if limit > 0 => Ok(limit.min(most)),
        _ => Err(ApiError::bad_param(
            "limit",
            format!("`limit` must be a number from 1 to {most}, not `{text}`"),
        )),
    }
}

/// Turns a newest-first list around when `order=asc` asks for it.
pub fn ordered<T>(mut items: Vec<T>, query: &Pairs) -> Result<Vec<T>, ApiError> {
    match query.get("order") {
        None | Some("desc") => Ok(items),
        Some("asc") => {
            items.reverse();
            Ok(items)
        }
        Some(other) => {
            Err(ApiError::bad_param("order", format!("`order` must be `asc` or `desc`, not `{other}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use hone::model::wire::ModelCard;
    use proptest::prelude::*;

    use super::*;

    fn items(n: usize) -> Vec<ModelCard> {
        (0..n).map(|i| ModelCard::new(format!("m{i}"), 1, "o")).collect()
    }

    fn query(pairs: &[(&str, &str)]) -> Pairs {
        Pairs(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_wrong_limit_or_cursor_is_refused() {
        for pairs in [[("limit", "0")], [("limit", "-1")], [("limit", "x")], [("after", "nobody")]] {
            assert!(cut(items(3), &query(&pairs), 20, 100).is_err(), "{pairs:?}");
        }
        assert!(ordered(items(1), &query(&[("order", "up")])).is_err());
        assert_eq!(cut(items(300), &query(&[("limit", "1000")]), 20, 100).unwrap().data.len(), 100);
    }

    proptest! {
        #[test]
        fn pages_make_up_the_list(n in 0usize..30, limit in 1usize..8) {
            let (mut seen, mut after) = (Vec::new(), String::new());
            loop {
                let pairs = query(&[("limit", &limit.to_string()), ("after", &after)]);
                let page = cut(items(n), &pairs, 20, 100).unwrap();
                seen.extend(page.data.iter().map(|item| item.id.clone()));
                prop_assert_eq!(page.last_id.as_ref(), page.data.last().map(|item| &item.id));
                if !page.has_more { break }
                after = page.last_id.unwrap();
            }
            let all: Vec<_> = items(n).into_iter().map(|item| item.id).collect();
            prop_assert_eq!(seen, all);
        }
    }
}
