//! The binary as its users meet it: help, usage, exit codes, and everything against a broker of `dayfly dev`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its fixtures too")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// What a run gave.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dayfly"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DAYFLY_")) {
        command.env_remove(name);
    }
    command.args(args).env("COLUMNS", "100").stdin(Stdio::null());
    command
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run(args: &[&str]) -> Ran {
    ran(&mut command(args))
}

/// The help of a verb, then of those under it.
fn reference(path: &[&str], text: &mut String) {
    let help = run(&[path, &["--help"]].concat());
    assert_eq!(help.code, 0, "{path:?}: {}", help.err);
    let title = [&["dayfly"], path].concat().join(" ");
    let depth = "#".repeat(path.len().min(1) + 2);
    // The connection is the same everywhere: told once, at the top.
    let (own, connection) = help.out.split_once("\nConnection:\n").unwrap();
    let shown = if path.is_empty() { format!("{own}\nConnection:\n{connection}") } else { own.to_owned() };
    let lines: Vec<_> = shown.trim_end().lines().map(str::trim_end).collect();
    text.extend(["\n", &depth, " `", &title, "`\n\n```text\n", &lines.join("\n"), "\n```\n"]);
    let listed = own.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let verbs = listed.lines().take_while(|line| !line.is_empty());
    let verbs = verbs.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    for verb in verbs.filter_map(|line| line.split_whitespace().next()) {
        reference(&[path, &[verb]].concat(), text);
    }
}

#[test]
fn the_command_line_reference_is_not_stale() {
    let mut fresh =
        "# The command line\n\n<!-- Made from the help by `DAYFLY_GEN=1 cargo test -p dayfly`. -->\n\nThe \
                     options under *Connection* go with every verb that calls the broker.\n"
            .to_owned();
    reference(&[], &mut fresh);
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    if std::env::var_os("DAYFLY_GEN").is_some() {
        fs::write(&place, &fresh).unwrap();
    }
    let committed = fs::read_to_string(&place).unwrap_or_default();
    assert!(
        committed == fresh,
        "{} is stale: run `DAYFLY_GEN=1 cargo test -p dayfly --test cli` and commit it",
        place.display()
    );
}

#[test]
fn wrong_usage_is_told_and_exits_with_2() {
    let cases: [(&[&str], &str); 16] = [
        (&[], "Usage: dayfly"),
        (&["isue"], "unrecognized subcommand"),
        (&["issue"], "--target <NAME>"),
        (&["issue", "--target", "t", "--ttl", "5"], "a whole number and one unit"),
        (&["whoami", "--token-file", "t"], "--server"),
        (&["whoami", "--server", "https://h:1", "--ca-file", "c"], "--token-file"),
        (
            &["whoami", "--server", "http://h:1", "--ca-file", "c", "--token-file", "t"],
            "plaintext is refused",
        ),
        (&["introspect", "eyJhbGciOi"], "unexpected argument"),
        (&["issue", "--target", "t", "--bind-jwk", "a", "--bind-certificate", "b"], "cannot be used with"),
        (&["keys", "import", "key.pem", "--config", "dayfly.toml"], "--target"),
        (&["keys", "import", "key.pem", "--target", "a/b/c", "--config", "dayfly.toml"], "not a target name"),
        (&["keys", "--trust-domain", "spiffe://t"], "not a trust domain"),
        (&["revoke", "--after", "hold", "--reason", "r"], "required arguments"),
        (&["revoke", "--owner", "o", "--reason", "r"], "--after <AFTER>"),
        (&["revoke", "--all", "--after", "hold", "--reason", "r"], "add --yes"),
        (&["revoke", "--pod", "api", "--after", "hold", "--reason", "r"], "NAMESPACE/NAME"),
    ];
    for (args, said) in cases {
        let ran = run(args);
        assert!(ran.code == 2 && ran.err.contains(said), "{args:?}: {ran:?}");
    }
    let two = ["revoke", "--pod", "a/b", "--namespace", "c", "--after", "hold", "--reason", "r"];
    let ran = run(&two);
    assert!(ran.code == 2 && ran.err.contains("two namespaces"), "{ran:?}");
    let dev = run(&["dev", "--listen", "0.0.0.0:0"]);
    assert!(dev.code == 2 && dev.err.contains("loopback"), "{dev:?}");
}

#[test]
fn a_broker_that_is_not_there_exits_with_4() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ca = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(path("ca"), ca.cert.pem()).unwrap();
    fs::write(path("token"), "x").unwrap();
    let args = [
        "whoami",
        "--server",
        "https://127.0.0.1:1",
        "--ca-file",
        &path("ca"),
        "--token-file",
        &path("token"),
    ];
    let gone = run(&args);
    assert_eq!(gone.code, 4, "{gone:?}");
    insta::assert_snapshot!(gone.err, @r"
    error: cannot reach the broker: tcp connect error: Connection refused (os error 111)
    to do: check --server and --ca-file, and that the broker runs
    ");
    // A private key does not even travel.
    fs::write(path("jwk"), r#"{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}"#).unwrap();
    fs::write(path("pem"), "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n").unwrap();
    for (option, file) in [("--bind-jwk", "jwk"), ("--bind-certificate", "pem")] {
        let bound = ["issue", "--target", "t", option, &path(file)];
        let bound = run(&[&bound, args.get(1..).unwrap()].concat());
        assert!(bound.code == 1 && bound.err.contains("holds a private key"), "{bound:?}");
    }
    fs::remove_file(path("token")).unwrap();
    let no_token = run(&args);
    assert!(no_token.code == 1 && no_token.err.contains("cannot read the token file"), "{no_token:?}");
}

#[test]
fn policy_check_says_what_is_wrong_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "owners.yaml",
        "apiVersion: dayfly.dev/v1alpha1\nkind: Owner\nmetadata: {name: payments}\nspec:\n  displayName: Payments\n  \
         contacts: ['#payments']\n  namespaces: {names: [payments]}\n",
    );
    let check = folder.path().display().to_string();
    let good = run(&["policy", "check", &check]);
    assert_eq!(good.code, 0, "{good:?}");
    insta::assert_snapshot!(good.out, @"valid: 1 owner, 0 targets, 0 grants");

    write(
        "grants.yaml",
        "apiVersion: dayfly.dev/v1alpha1\nkind: Grant\nmetadata: {name: orders, namespace: payments}\nspec:\n  \
         serviceAccount: [api]\n  target: orders\n  scope: ['orders:read']\n  defaultTtl: 5m\n  maxTtl: 10m\n",
    );
    write(
        "targets.yaml",
        "apiVersion: dayfly.dev/v1alpha1\nkind: Target\nmetadata: {name: orders}\nspec:\n  jwt: {audiences: \
         [dayfly]}\n  maxTtl: 10s\n",
    );
    let bad = run(&["policy", "check", &check]);
    assert_eq!(bad.code, 1, "{bad:?}");
    insta::assert_snapshot!("policy_check", bad.out);
    let json = run(&["policy", "check", &check, "-o", "json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["owners"], &json["problems"][0]["file"]), (&1.into(), &"grants.yaml".into()));
    let none = run(&["policy", "check", "/no/such/folder"]);
    assert!(none.code == 1 && none.err.contains("/no/such/folder"), "{none:?}");
}

#[test]
fn serve_checks_its_configuration_before_it_does_anything() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("dayfly.toml");
    fs::write(&config, "lisen = 1\n").unwrap();
    let bad = run(&["serve", "--check", "--config", &config.display().to_string()]);
    assert!(bad.code == 1 && bad.err.contains("dayfly.toml") && bad.err.contains("lisen"), "{bad:?}");
}

#[test]
fn dev_once_shows_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let ran = ran(command(&["dev", "--once"]).env("TMPDIR", folder.path()));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    for said in ["active: yes", "SCOPE_NOT_GRANTED", "active: no, revoked by", "recomputed:"] {
        assert!(ran.out.contains(said), "{said}: {}", ran.out);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the temporary folder is gone");
}

/// The most that can be logged, by broker, clients and libraries, holds no token, credential or private key.
#[test]
fn the_fullest_log_holds_no_secret() {
    let ran = ran(command(&["dev", "--once"]).env("DAYFLY_LOG", "trace"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("TRACE") && ran.err.contains("h2::"), "it is the fullest log");
    // JWTs, the stand-in's static tokens, PEM keys.
    for secret in ["eyJ", "dayfly-dev-broker-", "dayfly-dev-admin-", "PRIVATE KEY"] {
        let line = ran.err.lines().find(|line| line.contains(secret));
        assert!(
            line.is_none(),
            "{secret} in a line of the log from {:?}",
            line.map(|line| &line[..line.len().min(80)])
        );
    }
}

/// A running `dayfly dev`.
struct Dev {
    child: Child,
    folder: TempDir,
    server: String,
}

impl Dev {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().display().to_string();
        let child = command(&["dev", "--dir", &dir]).stdout(Stdio::piped()).spawn().unwrap();
        let mut dev = Self { child, folder, server: String::new() };
        let lines = BufReader::new(dev.child.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        loop {
            let line = receiver.recv_timeout(Duration::from_secs(60)).unwrap();
            if let Some((_, rest)) = line.split_once("DAYFLY_SERVER=") {
                rest.split_whitespace().next().unwrap().clone_into(&mut dev.server);
            }
            if line.starts_with("Ctrl-C") {
                return dev;
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the CLI with this person's token.
    fn as_(&self, token: &str, args: &[&str]) -> Command {
        let mut command = command(args);
        command.env("DAYFLY_SERVER", &self.server).env("DAYFLY_CA_FILE", self.path("ca.crt"));
        command.env("DAYFLY_TOKEN_FILE", self.path(token));
        command
    }

    fn run(&self, token: &str, args: &[&str]) -> Ran {
        ran(&mut self.as_(token, args))
    }

    fn json(&self, token: &str, args: &[&str]) -> Value {
        let ran = self.run(token, &[args, &["-o", "json"]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str(&ran.out).unwrap()
    }

    fn introspect(&self, credential: &str, args: &[&str]) -> Ran {
        let mut command = self.as_("verifier.token", &[&["introspect"], args].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(credential.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn stop(mut self) -> TempDir {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success());
        let nothing = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.folder, nothing)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_verbs_do_what_they_say_against_a_broker() {
    let dev = Dev::start();
    let me = dev.json("payments.token", &["whoami"]);
    assert_eq!((&me["owner"], &me["grants"][0]["name"]), (&"payments".into(), &"orders".into()));

    let issued =
        dev.json("payments.token", &["issue", "--target", "orders", "--scope", "orders:read", "--ttl", "2m"]);
    let lease = issued["lease"]["id"].as_str().unwrap();
    assert_eq!((&issued["lease"]["state"], &issued["renew_after"]), (&"active".into(), &84.into()));
    let table = dev.run("payments.token", &["issue", "--target", "orders"]);
    assert!(table.out.contains("owner     payments") && !table.out.contains("eyJ"), "{table:?}");
    let bare = dev.run("payments.token", &["issue", "--target", "orders", "-o", "credential"]);
    assert_eq!(bare.out.trim().split('.').count(), 3);

    let credential = issued["credential"].as_str().unwrap();
    let good = dev.introspect(&format!("{credential}\n"), &["--require-active"]);
    assert!(good.code == 0 && good.out.starts_with("active  yes"), "{good:?}");
    assert!(dev.introspect("", &[]).err.contains("holds no credential"));
    assert!(dev.introspect(&"x".repeat(9000), &[]).err.contains("more than a credential"));

    let denied = dev.run("payments.token", &["issue", "--target", "orders", "--scope", "orders:delete"]);
    assert!(denied.code == 3 && denied.err.contains("reason: SCOPE_NOT_GRANTED"), "{denied:?}");
    let audience = dev.run("payments.token", &["leases", "list"]);
    assert!(
        audience.code == 3 && audience.err.contains("to do: give --token-file a token of"),
        "{audience:?}"
    );
    for ran in [&denied, &audience] {
        assert!(!ran.err.contains("eyJ") && ran.out.is_empty(), "{ran:?}");
    }

    let owners = dev.json("operator.token", &["owners", "list"]);
    assert_eq!(owners["owners"][1]["namespaces"], serde_json::json!(["payments"]));
    let of_payments = ["leases", "list", "--owner", "payments", "--active"];
    assert_eq!(dev.json("operator.token", &of_payments)["leases"].as_array().unwrap().len(), 4);
    let page = dev.json("operator.token", &[&of_payments[..], &["--limit", "2"]].concat());
    assert_eq!((page["leases"].as_array().unwrap().len(), &page["more"]), (2, &true.into()));
    assert_eq!(dev.json("operator.token", &["leases", "get", lease])["target"], "orders");
    let none = dev.run("operator.token", &["leases", "get", "01995c5e-0000-7000-8000-000000000007"]);
    assert!(none.code == 1 && none.err.contains("reason: NOT_FOUND"), "{none:?}");

    let account = ["revoke", "--service-account", "payments/api", "--target", "orders", "--after", "hold"];
    let account = [&account[..], &["--reason", "a test"]].concat();
    let dry = dev.json("operator.token", &[&account[..], &["--dry-run"]].concat());
    assert_eq!(
        (&dry["would_cover"], &dry["can_reissue"], &dry["rule"]),
        (&4.into(), &false.into(), &Value::Null)
    );
    let revoked = dev.json("operator.token", &account);
    let rule = dev.json("operator.token", &["revocations", "get", revoked["rule"]["id"].as_str().unwrap()]);
    assert_eq!(
        (&rule["after"], &rule["reason"], &rule["selector"]["target"]),
        (&"hold".into(), &"a test".into(), &"orders".into())
    );

    let ended = dev.introspect(credential, &["-o", "json"]);
    let state: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (ended.code, &state["active"], &state["lease"]["state"]),
        (0, &false.into(), &"revoked".into())
    );
    assert_eq!(dev.introspect(credential, &["--require-active"]).code, 1);
    let held = dev.run("payments.token", &["issue", "--target", "orders"]);
    assert!(held.code == 3 && held.err.contains("reason: HELD"), "{held:?}");
    let keys: Value = serde_json::from_str(
        &run(&["keys", "--server", &dev.server, "--ca-file", &dev.path("ca.crt").display().to_string()]).out,
    )
    .unwrap();
    assert_eq!(keys["keys"][0]["alg"], "ES256");

    let folder = dev.stop();
    let store = folder.path().join("store").display().to_string();
    let whole = run(&["store", "verify", &store]);
    assert!(whole.code == 0 && whole.out.ends_with("whole\n"), "{whole:?}");
    let config = folder.path().join("dayfly.toml").display().to_string();
    assert_eq!(run(&["serve", "--check", "--config", &config]).code, 0);
}
