//! The committed code and references are what `proto/` says. `just gen` (`DAYFLY_GEN=1`) writes them anew, with protox:
//! no protoc. It stands with core, which needs none of the generated code to compile.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod reference;

use std::fs;
use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

const FILES: [&str; 6] = ["errors", "lease", "explanation", "workload", "verifier", "operator"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What `proto/` says, comments included.
fn descriptors() -> FileDescriptorSet {
    let proto = root().join("proto");
    let files = FILES.map(|name| proto.join(format!("dayfly/v1/{name}.proto")));
    protox::Compiler::new([&proto])
        .and_then(|mut compiler| {
            compiler.include_imports(true).include_source_info(true).open_files(files)?;
            Ok(compiler.file_descriptor_set())
        })
        .expect("proto/ compiles")
}

/// The generated files with their places: the code, the descriptors that reflection serves, the references.
fn generate() -> Vec<(PathBuf, Vec<u8>)> {
    let descriptors = descriptors();
    let out = tempfile::tempdir().unwrap();
    // Messages that hold a credential say so themselves: see `secret_messages` in the crate.
    tonic_prost_build::configure()
        .out_dir(out.path())
        .skip_debug([
            ".dayfly.v1.IssueResponse",
            ".dayfly.v1.RenewResponse",
            ".dayfly.v1.IntrospectRequest",
            ".dayfly.v1.ExplainRequest",
            // prost derives it for the message that holds it alone.
            ".dayfly.v1.ExplainRequest.about",
        ])
        .compile_fds(descriptors.clone())
        .unwrap();
    let code = fs::read(out.path().join("dayfly.v1.rs")).unwrap();
    let docs = reference::Comments::of(&descriptors);
    let (api, errors) = (docs.api(), docs.errors());
    let mut without_comments = descriptors;
    for file in &mut without_comments.file {
        file.source_code_info = None;
    }
    let set = prost::Message::encode_to_vec(&without_comments);
    vec![
        (root().join("src/api/src/generated/dayfly.v1.rs"), code),
        (root().join("src/api/src/generated/dayfly.v1.bin"), set),
        (root().join("docs/reference/api.md"), api.into_bytes()),
        (root().join("docs/reference/errors.md"), errors.into_bytes()),
    ]
}

#[test]
fn generated_files_are_not_stale() {
    for (place, fresh) in generate() {
        if std::env::var_os("DAYFLY_GEN").is_some() {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, &fresh).unwrap();
        }
        let committed = fs::read(&place).unwrap_or_default();
        assert!(committed == fresh, "{} is stale: run `just gen` and commit it", place.display());
    }
}

#[test]
fn every_part_of_the_api_is_documented() {
    let missing = reference::Comments::of(&descriptors()).undocumented();
    assert!(missing.is_empty(), "without a comment: {}", missing.join(", "));
}

/// Each service's comment has a table that says, for each of its RPCs, who may call it.
#[test]
fn every_rpc_has_a_row_that_says_who_may_call_it() {
    let docs = reference::Comments::of(&descriptors());
    let services = docs.services();
    assert_eq!(services.len(), 3);
    for (service, comment, rpcs) in services {
        let rows: Vec<&str> =
            comment.lines().filter_map(|line| line.trim().strip_prefix("| ")?.split(" |").next()).collect();
        for rpc in &rpcs {
            assert_eq!(rows.iter().filter(|row| *row == rpc).count(), 1, "{service}.{rpc} needs one row");
        }
        let unknown: Vec<_> =
            rows.iter().filter(|row| **row != "RPC" && !rpcs.iter().any(|rpc| rpc == *row)).collect();
        assert!(unknown.is_empty(), "{service} has rows of no RPC: {unknown:?}");
    }
}
