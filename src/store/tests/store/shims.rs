//! C fault shims, built with the system's compiler and preloaded into processes of tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds `tests/shims/NAME.c` into a shared object, and gives its path.
pub fn build(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/shims/{name}.c"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (object, building) =
        (folder.join(format!("{name}.so")), folder.join(format!("{name}.{}", std::process::id())));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let built = Command::new(&compiler)
        .args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"])
        .arg(&building)
        .arg(&source)
        .arg("-ldl")
        .status();
    assert!(built.is_ok_and(|status| status.success()), "{compiler} did not build {}", source.display());
    // Two runs at once do not see half of each other's.
    std::fs::rename(building, &object).unwrap();
    object
}
