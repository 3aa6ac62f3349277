//! The committed code is what `proto/` says. `just gen` (`DAYFLY_GEN=1`) writes it anew, with protox: no protoc.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const FILES: [&str; 5] = ["errors", "lease", "workload", "verifier", "operator"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The generated files, by name: the code and the descriptor set that reflection serves.
fn generate() -> Vec<(&'static str, Vec<u8>)> {
    let proto = root().join("proto");
    let files = FILES.map(|name| proto.join(format!("dayfly/v1/{name}.proto")));
    let descriptors = protox::Compiler::new([&proto])
        .and_then(|mut compiler| {
            compiler.include_imports(true).include_source_info(true).open_files(files)?;
            Ok(compiler.file_descriptor_set())
        })
        .expect("proto/ compiles");
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .build_transport(true)
        .compile_fds(descriptors.clone())
        .unwrap();
    let code = fs::read(out.path().join("dayfly.v1.rs")).unwrap();
    let mut without_comments = descriptors;
    for file in &mut without_comments.file {
        file.source_code_info = None;
    }
    let descriptors = prost::Message::encode_to_vec(&without_comments);
    vec![("dayfly.v1.rs", code), ("dayfly.v1.bin", descriptors), ("errors.md", error_reference())]
}

/// `docs/reference/errors.md`'s table, from the comments of `ErrorReason`.
fn error_reference() -> Vec<u8> {
    let text = fs::read_to_string(root().join("proto/dayfly/v1/errors.proto")).unwrap();
    let mut rows = String::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in text.lines().skip_while(|line| !line.starts_with("enum ErrorReason")).map(str::trim) {
        if let Some(words) = line.strip_prefix("// ") {
            comment.push(words);
        } else if let Some(name) =
            line.strip_prefix("ERROR_REASON_").and_then(|rest| rest.split(" = ").next())
        {
            let whole = comment.join(" ");
            if let Some((code, meaning)) = whole.split_once(". ") {
                writeln!(rows, "| `{name}` | `{code}` | {meaning} |").unwrap();
            }
            comment.clear();
        } else {
            comment.clear();
        }
    }
    let head = "# Errors\n\n<!-- Made by `just gen` from proto/dayfly/v1/errors.proto. -->\n\nEvery rejection is a gRPC \
                status with a `google.rpc.ErrorInfo`: `domain` is `dayfly.dev`, `reason` is one of these. Where asking \
                again can help,\na `google.rpc.RetryInfo` says when. Reasons are stable; messages may be reworded.\n\n\
                | reason | gRPC code | what it means, and what to change |\n|---|---|---|\n";
    format!("{head}{rows}").into_bytes()
}

fn place(name: &str) -> PathBuf {
    match name {
        "errors.md" => root().join("docs/reference/errors.md"),
        _ => root().join("src/api/src/generated").join(name),
    }
}

#[test]
fn generated_code_is_not_stale() {
    for (name, fresh) in generate() {
        let place = place(name);
        if std::env::var_os("DAYFLY_GEN").is_some() {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, &fresh).unwrap();
        }
        let committed = fs::read(&place).unwrap_or_default();
        assert!(committed == fresh, "{} is stale: run `just gen` and commit it", place.display());
    }
}
