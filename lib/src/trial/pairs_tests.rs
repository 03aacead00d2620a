use super::*;
use crate::trial::{
    Status,
    fixtures::{BASE_TUNED, GOOD, POOR, spec, uniform},
    summarise_with,
};

fn pair(brief: &str, better: Better, by: &str) -> Pair {
    Pair {
        format: FORMAT.into(),
        version: VERSION,
        brief: brief.into(),
        sample: 0,
        reference: Arm::BASE.into(),
        better,
        decided: None,
        by: by.into(),
    }
}

#[test]
fn opinions_on_one_brief_count_once() {
    use Better::{Reference, Tie, Tuned};
    let pairs = [
        pair("a", Tuned, PEOPLE),
        pair("a", Reference, PEOPLE),
        pair("b", Tuned, PEOPLE),
        pair("c", Tie, PEOPLE),
        pair("a", Tuned, "j"),
    ];
    let [judge, people] = &figures(&pairs)[..] else { panic!("two") };
    assert_eq!((judge.by.as_str(), judge.n, judge.win_rate), ("j", 1, Some(1.0)));
    assert_eq!((people.n, people.opinions, people.wins, people.ties), (3, 4, 2, 1));
    assert!((people.win_rate.unwrap() - 2.0 / 3.0).abs() < 1e-12);
    assert!(people.low < people.win_rate && people.win_rate < people.high);
    assert_eq!(figures(&[]), []);
}

#[test]
fn whoever_surely_contradicts_the_scores_stops_a_promotion() {
    let spec = spec(20, 1, &BASE_TUNED);
    let rows = uniform(&spec, POOR, GOOD);
    let check = |wins: usize, by: &str, name: &str, expected: Status| {
        let pairs: Vec<Pair> = (0..20)
            .map(|i| pair(&format!("b{i}"), if i < wins { Better::Tuned } else { Better::Reference }, by))
            .collect();
        let summary = summarise_with(&spec, &rows, &pairs);
        let gate = summary.gates.iter().find(|gate| gate.name == name).unwrap();
        assert_eq!(gate.status, expected, "{}", gate.reason);
        assert_eq!(summary.verdict == crate::trial::Verdict::Promote, expected != Status::Fail);
        assert_eq!(summary.pairs[0].n, 20);
    };
    check(15, "j", "second judge", Status::Pass);
    check(8, "j", "second judge", Status::Note);
    check(2, "j", "second judge", Status::Fail);
    check(15, PEOPLE, PEOPLE, Status::Pass);
    check(2, PEOPLE, PEOPLE, Status::Fail);
}

fn rating(trial: &str, row_a: &Row, row_b: &Row, prefers: rating::Choice) -> Rating {
    let side = |row: &Row| rating::Side {
        model: row.model.clone(),
        arm: Some(row.arm.clone()),
        sample: Some(row.sample),
        log: None,
        iteration: None,
        score: None,
        files: row.files.clone(),
    };
    Rating {
        format: rating::FORMAT.into(),
        version: rating::FORMAT_VERSION,
        at: String::new(),
        rater: "r".into(),
        source: Source::Trial(trial.into()),
        brief: serde_json::from_value(serde_json::json!({"id": row_a.brief, "description": "x"})).unwrap(),
        a: side(row_a),
        b: side(row_b),
        prefers,
        shown_first: rating::Which::A,
    }
}

#[test]
fn ratings_are_about_the_arms_whichever_side_they_were_on() {
    let spec = spec(3, 1, &BASE_TUNED);
    let rows = uniform(&spec, POOR, GOOD);
    let row = |brief: usize, arm: &str| {
        rows.iter().find(|r| r.brief == spec.briefs[brief].id.as_str() && r.arm == arm).unwrap()
    };
    let of = |brief: usize, first: &str, second: &str, prefers| {
        rating("t-1", row(brief, first), row(brief, second), prefers)
    };
    let mut bare = of(2, "tuned", "base", rating::Choice::A);
    bare.a.arm = None;
    bare.b.arm = None;
    bare.brief = Brief::from_description("Written down as a sentence").unwrap();
    let mut elsewhere = of(0, "tuned", "base", rating::Choice::B);
    elsewhere.a.files[0].content.push('#');
    let ratings = [
        of(0, "tuned", "base", rating::Choice::A),
        Rating { rater: "s".into(), ..of(0, "base", "tuned", rating::Choice::A) },
        of(1, "base", "tuned", rating::Choice::Tie),
        bare,
        elsewhere,
        rating("t-9", row(0, "base"), row(0, "tuned"), rating::Choice::A),
        of(0, "tuned", "tuned", rating::Choice::A),
        rating("t-1", row(0, "tuned"), row(1, "base"), rating::Choice::A),
    ];
    let (pairs, strange) = of_people(&spec, &rows, &ratings);
    let found: Vec<Better> = pairs.iter().map(|pair| pair.better).collect();
    assert_eq!(found, [Better::Tuned, Better::Reference, Better::Tie, Better::Tuned]);
    assert_eq!((strange, pairs[3].brief.as_str()), (3, spec.briefs[2].id.as_str()));
}

#[test]
fn ratings_that_are_read_twice_count_once() {
    let spec = spec(3, 1, &BASE_TUNED);
    let first = uniform(&spec, POOR, GOOD);
    let second = first.iter().map(|row| Row { sample: 1, ..row.clone() });
    let rows: Vec<Row> = first.iter().cloned().chain(second).collect();
    let row = |brief: usize, arm: &str, sample: u32| {
        let asked = spec.briefs[brief].id.as_str();
        rows.iter().find(|r| r.brief == asked && r.arm == arm && r.sample == sample).unwrap()
    };
    let of = |rater: &str, sample: u32, prefers| Rating {
        rater: rater.into(),
        ..rating("t-1", row(0, "base", sample), row(0, "tuned", sample), prefers)
    };
    let once = [
        of("x", 0, rating::Choice::A),
        of("x", 1, rating::Choice::B),
        of("y", 0, rating::Choice::B),
        of("", 0, rating::Choice::B),
    ];
    // Written down elsewhere, without the names of the arms.
    let mut bare = of("x", 0, rating::Choice::B);
    (bare.a.arm, bare.b.arm) = (None, None);
    let count = |ratings: &[Rating]| {
        let (pairs, strange) = of_people(&spec, &rows, ratings);
        let figures = figures(&pairs).pop().unwrap();
        (figures.n, figures.opinions, figures.wins, strange)
    };
    assert_eq!(count(&once), (1, 4, 3, 0));
    let named = &once[..3];
    assert_eq!(count(&[&once, named].concat()), (1, 4, 3, 0));
    assert_eq!(count(&[&once[..], &[bare]].concat()), (1, 4, 4, 0), "the latest");
}

#[test]
fn what_a_judge_said_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::open(folder.path(), &spec(3, 1, &BASE_TUNED)).unwrap().trial;
    assert_eq!(read(&trial, "j", Arm::BASE).unwrap().len(), 0);
    for (brief, by) in [("a", "j"), ("b", "k"), ("c", "j")] {
        append_line(&path(&trial), &pair(brief, Better::Tie, by)).unwrap();
    }
    let known = read(&trial, "j", Arm::BASE).unwrap();
    assert_eq!(known.keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(read(&trial, "j", Arm::CHAMPION).unwrap().len(), 0);
}
