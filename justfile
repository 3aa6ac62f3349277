# What a person does here, by name. CI runs .ci/run.

# lists the recipes
default:
    @just --list --unsorted

# what needs no control plane: between edits
quick:
    ./test --quick

# all tests, the end-to-end ones against a real Kubernetes control plane included
test *ARGS:
    ./test {{ARGS}}

# the end-to-end tests alone
e2e:
    ./test --e2e

# load and ceilings, optimised: one run, one table
bench *ARGS:
    cargo run --release --package dayfly-bench -- {{ARGS}}

# formats the code
fmt:
    cargo fmt --all

# writes what is generated anew: protobuf code, API, error, policy and command-line reference, schemas
gen:
    DAYFLY_GEN=1 cargo test --package dayfly-core --test generated
    DAYFLY_GEN=1 cargo test --package dayfly-policy --test reference
    DAYFLY_GEN=1 cargo test --package dayfly --test cli

# writes the test vectors of dayfly-verify anew: another library's tokens (needs Python 3 and PyPI)
vectors:
    python3 -m venv "${TMPDIR:-/tmp}/dayfly-vectors"
    "${TMPDIR:-/tmp}/dayfly-vectors/bin/pip" install --quiet joserfc==1.8.0
    "${TMPDIR:-/tmp}/dayfly-vectors/bin/python" src/verify/tests/vectors/make.py

# clippy as CI runs it, and buf where it is installed
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    if command -v buf >/dev/null; then buf lint; fi

# licences, duplicates, bans, sources (needs cargo-deny)
deny:
    cargo deny --all-features check bans licenses sources

# a broker with its guide, against a stand-in for Kubernetes: nothing else needed
dev *ARGS:
    cargo run -- dev {{ARGS}}

# all that CI runs
ci:
    .ci/run
