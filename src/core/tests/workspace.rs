//! What holds for the workspace as a whole: the import arrows of the design, names, shared dependencies, one build for
//! `cargo run`, `-p` and `--workspace`, and what no source file of ours says.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crate → what it may import of ours. `core` and `api` are open to all. Imports point up in this table only.
const ARROWS: [(&str, &[&str]); 15] = [
    ("core", &[]),
    ("policy", &[]),
    ("jose", &[]),
    ("api", &[]),
    ("store", &[]),
    ("keys", &["jose"]),
    ("mint", &[]),
    ("kube", &["policy", "jose"]),
    ("broker", &["policy"]),
    ("server", &["policy", "jose", "store", "keys", "mint", "kube", "broker"]),
    ("client", &[]),
    ("verify", &["client", "jose"]),
    ("agent", &["client", "verify"]),
    ("dev", &["jose"]),
    ("cli", &["server", "client", "policy", "dev"]),
];
const OPEN_TO_ALL: [&str; 2] = ["core", "api"];
/// Of the two open ones: `core` imports nothing of ours, `api` only `core`.
const CORE_IMPORTS: [(&str, &[&str]); 2] = [("core", &[]), ("api", &["core"])];

/// The one file that may use what the lint `unsafe_code` denies: sled's durable sync.
const UNSAFE_FILE: &str = "src/store/src/durable_sync.rs";

#[test]
fn imports_follow_the_arrows() {
    let members = members();
    let folder_of = folders(&members);
    for member in members.iter().filter(|member| member.path.starts_with("src")) {
        let folder = member.folder();
        let row = ARROWS.iter().find(|(name, _)| *name == folder);
        assert!(row.is_some(), "src/{folder} has no row in ARROWS");
        let allowed = row.map_or([].as_slice(), |(_, allowed)| allowed);
        let open = CORE_IMPORTS.iter().find(|(name, _)| *name == folder);
        let open = open.map_or(OPEN_TO_ALL.as_slice(), |(_, open)| open);
        for import in member.normal_dependencies.iter().filter_map(|name| folder_of.get(name)) {
            assert!(
                allowed.contains(&import.as_str()) || open.contains(&import.as_str()),
                "src/{folder} may not import src/{import}: see Layout in the design, and ARROWS in this test"
            );
        }
    }
}

#[test]
fn crates_are_named_by_their_folder() {
    for member in members() {
        let folder = member.folder();
        let expected = if folder == "cli" { "dayfly".to_owned() } else { format!("dayfly-{folder}") };
        assert_eq!(member.name, expected, "{}", member.path.display());
    }
}

#[test]
fn third_party_dependencies_are_the_workspaces() {
    for member in members() {
        let path = member.path.join("Cargo.toml");
        let manifest = fs::read_to_string(root().join(&path)).unwrap();
        let mut in_dependencies = false;
        for (number, line) in manifest.lines().enumerate() {
            let at = format!("{}:{}: {line}", path.display(), number + 1);
            let line = line.split('#').next().unwrap().trim();
            if let Some(table) = line.strip_prefix('[') {
                let table = table.trim_end_matches(']');
                in_dependencies = table.ends_with("dependencies");
                assert!(!table.contains("dependencies."), "a dependency is one line:\n{at}");
                continue;
            }
            let Some((name, value)) = line.split_once('=').filter(|_| in_dependencies) else { continue };
            if name.starts_with("dayfly") {
                continue;
            }
            let workspaces = name.trim().ends_with(".workspace") && value.trim() == "true"
                || value.contains("workspace = true");
            assert!(workspaces, "a dependency is given once, in the workspace's Cargo.toml:\n{at}");
            let own = ["version", "features", "default-features"].iter().any(|key| value.contains(key));
            assert!(!own, "features are given once, in the workspace's Cargo.toml:\n{at}");
        }
    }
}

#[test]
fn the_cli_alone_resolves_the_same_features_as_the_workspace() {
    let alone = features(&["--package", "dayfly"]);
    let together = features(&["--workspace"]);
    let differing: Vec<String> = alone
        .iter()
        .filter_map(|(name, alone)| Some((name, alone, together.get(name)?)))
        .filter(|(_, alone, together)| alone != together)
        .map(|(name, alone, together)| {
            let more: Vec<_> = together.symmetric_difference(alone).collect();
            format!("{name}: {more:?}")
        })
        .collect();
    assert!(
        differing.is_empty(),
        "these would be built twice, as features differ between `-p dayfly` and `--workspace`; name them in the workspace's \
         Cargo.toml:\n{}",
        differing.join("\n")
    );
}

/// What runs beside a workload, or in someone else's server, stays small.
#[test]
fn heavy_crates_never_reach_client_and_verify() {
    const HEAVY: [&str; 3] = ["kube", "k8s-openapi", "sled"];
    for package in ["dayfly-client", "dayfly-verify"] {
        let reached = features(&["--package", package, "--all-features"]);
        let heavy: Vec<_> = HEAVY.iter().filter(|name| reached.contains_key(**name)).collect();
        assert!(heavy.is_empty(), "{package} imports {heavy:?}");
        assert!(reached.contains_key("tonic"), "{reached:?}");
    }
}

#[test]
fn only_one_file_is_unsafe() {
    for (path, text) in sources() {
        if path == Path::new(UNSAFE_FILE) || path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let uses = code.match_indices(UNSAFE).any(|(start, word)| {
                let (before, after) = (&code[..start], &code[start + word.len()..]);
                let starts = before.chars().next_back().is_none_or(|it| !it.is_alphanumeric() && it != '_');
                let uses = ["{", "fn ", "impl ", "trait ", "extern ", "("];
                starts && uses.iter().any(|next| after.trim_start().starts_with(next))
            });
            assert!(!uses, "{}:{}: only {UNSAFE_FILE} may:\n{line}", path.display(), number + 1);
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")];
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let word = words.iter().find(|word| line.contains(**word));
            assert!(
                word.is_none(),
                "{}:{}: what is to be done is an issue:\n{line}",
                path.display(),
                number + 1
            );
        }
    }
}

const UNSAFE: &str = concat!("un", "safe");

/// A crate of the workspace.
struct Member {
    name: String,
    /// Its folder, from the root.
    path: PathBuf,
    normal_dependencies: Vec<String>,
}

impl Member {
    fn folder(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }
}

fn members() -> Vec<Member> {
    let metadata: Value =
        serde_json::from_slice(&cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"]))
            .unwrap();
    let root = root();
    let packages = metadata["packages"].as_array().unwrap();
    let members: Vec<Member> = packages
        .iter()
        .map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
            Member {
                name: package["name"].as_str().unwrap().to_owned(),
                path: manifest.parent().unwrap().strip_prefix(&root).unwrap().to_owned(),
                normal_dependencies: normal.map(|it| it["name"].as_str().unwrap().to_owned()).collect(),
            }
        })
        .collect();
    assert!(members.len() > 10, "found only {} crates", members.len());
    members
}

/// The folders of our crates, by crate.
fn folders(members: &[Member]) -> BTreeMap<String, String> {
    members.iter().map(|member| (member.name.clone(), member.folder())).collect()
}

/// The features that third-party crates are built with, by crate.
fn features(selection: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let common = ["tree", "--offline", "--edges", "normal,features", "--prefix", "none"];
    let tree = String::from_utf8(cargo(&[&common, selection].concat())).unwrap();
    let mut features: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in tree.lines() {
        let line = line.trim_end_matches(" (*)").trim_end_matches(" (command-line)");
        if let Some((name, feature)) = line.split_once(" feature ")
            && !name.starts_with("dayfly")
        {
            features.entry(name.to_owned()).or_default().insert(feature.trim_matches('"').to_owned());
        }
    }
    assert!(features.len() > 10, "found the features of only {} crates", features.len());
    features
}

/// Every text file under `src/` but this one.
fn sources() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut folders = vec![root.join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(files.len() > 10, "found only {} files", files.len());
    files
}

fn cargo(arguments: &[&str]) -> Vec<u8> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {}: {error}", arguments.join(" "));
    output.stdout
}

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}
