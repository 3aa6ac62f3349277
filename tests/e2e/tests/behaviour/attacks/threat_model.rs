//! The threat model's document says what the tests do, and all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::all;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A row of a table of attacks: `| what | answer | stopped by | shown by |`.
struct Row {
    answers: BTreeSet<String>,
    places: Vec<String>,
    tests: Vec<String>,
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(Path::new(ROOT).join("docs/explanation/threat-model.md")).unwrap();
    let attacks = text.split_once("\n## What each can try").unwrap().1.split_once("\n## ").unwrap().0;
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    let lines = attacks.lines().filter(|line| line.starts_with('|')).map(cells);
    let rows = lines.filter(|cells| !cells[1].starts_with("---") && cells[1] != "attack");
    rows.map(|cells| {
        assert_eq!(cells.len(), 6, "{cells:?}");
        let quoted =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let row = Row {
            answers: quoted(&cells[2]).into_iter().collect(),
            places: quoted(&cells[3]).into_iter().filter(|place| place.starts_with("src/")).collect(),
            tests: quoted(&cells[4]),
        };
        assert!(!row.places.is_empty() && !row.tests.is_empty(), "nothing stops or shows this: {cells:?}");
        row
    })
    .collect()
}

#[test]
fn every_attack_is_in_the_threat_model_and_each_there_is_a_test() {
    let all = all();
    let gets: BTreeMap<_, _> = all.iter().copied().collect();
    assert_eq!(gets.len(), all.len(), "two attacks have one name");
    let functions = functions();
    let mut named = BTreeSet::new();
    for Row { answers, places, tests } in rows() {
        for test in tests {
            match gets.get(test.as_str()) {
                Some(reasons) => {
                    let told = reasons.split(' ').all(|reason| answers.contains(reason));
                    assert!(told, "{test} gets {reasons}, and the document says {answers:?}");
                }
                None => assert!(functions.contains(&test), "there is no attack and no test {test}"),
            }
            named.insert(test);
        }
        for place in places {
            assert!(Path::new(ROOT).join(&place).exists(), "there is no {place}");
        }
    }
    let missing: Vec<_> = gets.keys().filter(|name| !named.contains(**name)).collect();
    assert!(missing.is_empty(), "not in the threat model: {missing:?}");
}

#[test]
fn every_reason_in_the_threat_model_is_one_of_the_api() {
    let reasons = std::fs::read_to_string(Path::new(ROOT).join("docs/reference/errors.md")).unwrap();
    for answer in rows().into_iter().flat_map(|row| row.answers) {
        assert!(reasons.contains(&format!("\n| `{answer}` |")), "{answer}");
    }
}

/// The name of every function that a test file, or a module of tests, has.
fn functions() -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in ["src", "tests/e2e/tests"] {
        find(&Path::new(ROOT).join(folder), &mut files);
    }
    let names = files.iter().flat_map(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        let tests = if file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs")
        {
            text.as_str()
        } else {
            text.split_once("#[cfg(test)]").map_or("", |(_, tests)| tests)
        };
        let of = |line: &str| {
            line.trim_start().split_once("fn ")?.1.split_once(['(', '<']).map(|(name, _)| name.to_owned())
        };
        tests.lines().filter_map(of).collect::<Vec<_>>()
    });
    names.collect()
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
