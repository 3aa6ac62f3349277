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

/// A folder with an example's policy, and its tests.
fn policy_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let head = |kind, name| {
        format!("apiVersion: dayfly.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n")
    };
    let policy = [
        head("Owner", "payments")
            + "  {displayName: Payments, contacts: ['#payments'], namespaces: {names: [payments]}}\n",
        head("Target", "orders")
            + "  jwt: {audiences: ['https://orders.example']}\n  maxTtl: 1h\n  ceiling: [{namespaces: [payments], scopes: \
               [read, write]}]\n",
        head("Grant", "orders, namespace: payments")
            + "  {serviceAccounts: [api], target: orders, scope: [read, write], defaultTtl: 5m, maxTtl: 15m}\n",
    ];
    let tests = head("PolicyTest", "orders")
        + "  cases:
    - name: the API reads
      given: {cluster: east, namespace: payments, serviceAccount: api}
      asks: {target: orders, scope: [read]}
      expects: {decision: Granted, owner: payments, grant: orders, scope: [read], ttl: 5m}
    - name: nobody's pod gets nothing
      given: {cluster: east, namespace: nobodys, serviceAccount: api}
      asks: {target: orders}
      expects: {decision: Denied, reason: UNOWNED}
    - name: only to be compared
      given: {cluster: east, namespace: payments, serviceAccount: web}
      asks: {target: orders}
";
    fs::write(folder.path().join("policy.yaml"), policy.join("---\n")).unwrap();
    fs::write(folder.path().join("tests.yaml"), tests).unwrap();
    folder
}

/// With another text in one of its files.
fn changed(folder: &TempDir, file: &str, from: &str, to: &str) -> TempDir {
    let changed = policy_folder();
    let text = fs::read_to_string(folder.path().join(file)).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(changed.path().join(file), text.replace(from, to)).unwrap();
    changed
}

#[test]
fn policy_test_says_what_is_not_as_expected_and_why() {
    let folder = policy_folder();
    let path = |folder: &TempDir| folder.path().display().to_string();
    let good = run(&["policy", "test", &path(&folder)]);
    assert_eq!(good.code, 0, "{good:?}");
    insta::assert_snapshot!("policy_test_good", good.out);
    let report = folder.path().join("report.xml").display().to_string();
    assert!(run(&["policy", "check", &path(&folder), "--junit", &report]).out.contains("1 grant, 1 test"));
    insta::assert_snapshot!("policy_check_junit_good", fs::read_to_string(&report).unwrap());
    let unreadable = changed(&folder, "policy.yaml", "kind: Grant", "kind: Grants");
    run(&["policy", "check", &path(&unreadable), "--junit", &report]);
    insta::assert_snapshot!("policy_check_junit_bad", fs::read_to_string(&report).unwrap());

    let narrower = changed(
        &folder,
        "policy.yaml",
        "scope: [read, write], defaultTtl: 5m",
        "scope: [write], defaultTtl: 2m",
    );
    let junit = narrower.path().join("report.xml").display().to_string();
    let bad = run(&["policy", "test", &path(&narrower), "--junit", &junit]);
    assert_eq!(bad.code, 1, "{bad:?}");
    let generation = |text: &str| {
        text.lines().filter(|line| !line.trim().starts_with("by  ")).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!("policy_test_bad", generation(&bad.out));
    insta::assert_snapshot!("policy_test_junit", generation(&fs::read_to_string(&junit).unwrap()));
    let longer = changed(&folder, "tests.yaml", "ttl: 5m", "ttl: 6m");
    let bad = run(&["policy", "test", &path(&longer), "-o", "json"]);
    let json: Value = serde_json::from_str(&bad.out).unwrap();
    assert_eq!((bad.code, &json["failed"], &json["passed"]), (1, &1.into(), &1.into()));
    let expected = serde_json::json!([{"field": "ttl", "expected": "6m", "got": "5m"}]);
    assert_eq!(json["cases"][0]["differences"], expected);

    let broken = changed(&folder, "tests.yaml", "expects: {decision: Denied", "expects: {decision: Refused");
    let broken = run(&["policy", "test", &path(&broken)]);
    assert!(broken.code == 1 && broken.out.contains("tests.yaml:13:"), "{broken:?}");
    let none = tempfile::tempdir().unwrap();
    let none = run(&["policy", "test", &path(&none)]);
    assert!(none.code == 1 && none.err.contains("holds no PolicyTest"), "{none:?}");
    let apart =
        run(&["policy", "test", &path(&narrower), "--tests", &format!("{}/tests.yaml", path(&folder))]);
    assert!(apart.code == 1 && apart.out.contains("1 as expected, 1 not"), "{apart:?}");
}

#[test]
fn policy_diff_says_who_is_answered_otherwise() {
    let old = policy_folder();
    let path = |folder: &TempDir| folder.path().display().to_string();
    let (old_path, workloads) = (path(&old), format!("{}/tests.yaml", path(&old)));
    let same = run(&["policy", "diff", &old_path, &old_path, "--workloads", &workloads]);
    assert_eq!((same.code, same.out.as_str()), (0, "3 questions, no change\n"));
    let other = "scope: [read], defaultTtl: 2m";
    let new = changed(&old, "policy.yaml", "scope: [read, write], defaultTtl: 5m", other);
    let new = changed(&new, "policy.yaml", "serviceAccounts: [api]", "serviceAccounts: [api, web]");
    fs::write(
        new.path().join("policy.yaml"),
        fs::read_to_string(new.path().join("policy.yaml"))
            .unwrap()
            .replace("scope: [read, write], defaultTtl: 5m", other),
    )
    .unwrap();
    let differ = run(&["policy", "diff", &old_path, &path(&new), "--workloads", &workloads]);
    assert_eq!(differ.code, 1, "{differ:?}");
    insta::assert_snapshot!("policy_diff", differ.out);

    let report = new.path().join("report.xml").display().to_string();
    run(&["policy", "diff", &old_path, &path(&new), "--workloads", &workloads, "--junit", &report]);
    insta::assert_snapshot!("policy_diff_junit", fs::read_to_string(&report).unwrap());

    let lease = |id: u32, state: &str| {
        serde_json::json!({
            "id": id.to_string(), "state": state, "owner": "payments", "target": "orders", "grant": "payments/orders",
            "workload": {"cluster": "east", "namespace": "payments", "service_account": "api", "service_account_uid": "u", "pod": "api-0"},
            "audience": "https://orders.example", "scope": ["write"],
            "issued_at": "2026-11-23T12:00:00Z", "expires_at": "2026-11-23T12:05:00Z",
        })
    };
    let leases = serde_json::json!({"leases": [lease(1, "active"), lease(2, "active"), lease(3, "expired")], "more": false});
    let file = old.path().join("leases.json").display().to_string();
    fs::write(&file, leases.to_string()).unwrap();
    let differ = run(&["policy", "diff", &old_path, &path(&new), "--leases", &file, "-o", "json"]);
    let json: Value = serde_json::from_str(&differ.out).unwrap();
    let change = &json["changes"][0];
    assert_eq!((differ.code, &json["asked"], &change["change"]), (1, &1.into(), &"lost".into()));
    assert_eq!((&change["about"], &change["workload"]), (&"2 leases".into(), &"east:payments:api".into()));
    assert!(change["how"].as_str().unwrap().contains("now denied, SCOPE_NOT_GRANTED"), "{change}");

    // What the old policy does not give, leases of another cluster, and those of the grace are told apart.
    let (mut foreign, mut orphan) = (lease(4, "active"), lease(5, "active"));
    foreign["workload"]["cluster"] = "west".into();
    orphan["owner"] = "unowned".into();
    orphan["workload"]["namespace"] = "nobodys".into();
    orphan["grant"] = "nobodys/orders".into();
    let leases = serde_json::json!({"leases": [lease(1, "active"), foreign, orphan]});
    fs::write(&file, leases.to_string()).unwrap();
    let policy = old.path().join("policy.yaml");
    let text = fs::read_to_string(&policy).unwrap();
    let entry = "ceiling: [{owners: [unowned], scopes: [write]}, ";
    let grant = "---\napiVersion: dayfly.dev/v1alpha1\nkind: Grant\nmetadata: {name: orders, namespace: nobodys}\nspec: \
                 {serviceAccounts: [api], target: orders, scope: [write], defaultTtl: 5m, maxTtl: 15m}\n";
    fs::write(&policy, text.replace("ceiling: [", entry) + grant).unwrap();
    let several = run(&["policy", "diff", &old_path, &old_path, "--leases", &file]);
    assert!(several.code == 1 && several.err.contains("say with --in-cluster which"), "{several:?}");
    let of_east = ["policy", "diff", &old_path, &old_path, "--leases", &file, "--in-cluster", "east"];
    insta::assert_snapshot!("policy_diff_leases_not_given", run(&of_east).out);
    let grace = [&of_east[..], &["--unowned-until", "2200-01-31T00:00:00Z", "-o", "json"]].concat();
    let same = run(&grace);
    let json: Value = serde_json::from_str(&same.out).unwrap_or_else(|_| panic!("{same:?}"));
    assert_eq!(
        (&json["not_given"], &json["asked"], &json["of_other_clusters"]),
        (&Value::Null, &2.into(), &1.into())
    );
    assert!(json["note"].as_str().unwrap().contains("labels"), "{json}");
    let over = [&of_east[..], &["--unowned-until", "2026-01-31T00:00:00Z", "-o", "json"]].concat();
    let json: Value = serde_json::from_str(&run(&over).out).unwrap();
    assert_eq!(json["not_given"].as_array().unwrap().len(), 1);

    fs::write(&file, "[]").unwrap();
    let wrong = run(&["policy", "diff", &old_path, &old_path, "--leases", &file]);
    assert!(wrong.code == 1 && wrong.err.contains("not the output of"), "{wrong:?}");
    assert_eq!(run(&["policy", "diff", &old_path, &old_path]).code, 2);
}

/// What the broker lists is what `policy diff --leases` reads: see also the verbs against a broker, below.
#[test]
fn policy_schema_prints_what_is_committed() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/schemas");
    for kind in ["policy", "owner", "target", "grant", "policy-test"] {
        let printed = run(&["policy", "schema", kind]);
        let committed = fs::read_to_string(place.join(format!("{kind}.json"))).unwrap();
        assert!(printed.code == 0 && printed.out == committed, "{kind}");
    }
    assert_eq!(run(&["policy", "schema"]).out, run(&["policy", "schema", "policy"]).out);
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

/// A guide that goes wrong says where, and is no success.
#[test]
fn dev_once_fails_at_the_first_step_that_is_not_as_it_should_be() {
    let dev = Dev::start();
    let hold = ["revoke", "--owner", "payments", "--after", "hold", "--reason", "a test"];
    assert_eq!(dev.run("operator.token", &hold).code, 0);
    let folder = dev.stop();
    let again = run(&["dev", "--once", "--dir", &folder.path().display().to_string()]);
    assert!(again.code != 0 && again.err.contains("payments got no credential"), "{again:?}");
    assert!(!again.out.contains("active: yes"), "nothing after it: {}", again.out);
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
fn a_workload_renews_watches_and_gives_back() {
    let dev = Dev::start();
    let issued = dev.json("payments.token", &["issue", "--target", "orders", "--ttl", "2m"]);
    let first = issued["lease"]["id"].as_str().unwrap();
    let renewed = dev.json("payments.token", &["renew", first, "--scope", "orders:read", "--ttl", "2m"]);
    let lease = &renewed["lease"];
    assert_eq!((&lease["renews"], &lease["scope"]), (&first.into(), &serde_json::json!(["orders:read"])));
    assert_eq!(renewed["renew_after"], 84);
    let id = lease["id"].as_str().unwrap();
    let earlier = dev.json("operator.token", &["leases", "get", first]);
    assert_eq!((&earlier["renewed_by"], &earlier["state"]), (&id.into(), &"active".into()));
    assert!(earlier["ends_at"].as_str().unwrap() < earlier["expires_at"].as_str().unwrap(), "{earlier}");
    let twice = dev.run("payments.token", &["renew", first]);
    assert!(twice.code == 1 && twice.err.contains("reason: LEASE_RENEWED"), "{twice:?}");
    let others = dev.run("checkout.token", &["renew", id]);
    assert!(others.code == 1 && others.err.contains("reason: NOT_FOUND"), "{others:?}");

    let events = dev.json("operator.token", &["events", "list", "--subject", first]);
    let kinds: Vec<_> = events["events"].as_array().unwrap().iter().map(|it| it["kind"].clone()).collect();
    assert_eq!(kinds, ["issued", "renewed"], "{events}");
    let table = dev
        .run("operator.token", &["events", "list", "--owner", "payments", "--limit", "1", "--since", "1h"]);
    assert!(table.out.starts_with("POSITION") && table.out.lines().count() == 2, "{table:?}");
    assert!(table.out.contains(id) && table.err.contains("raise --limit"), "the newest one: {table:?}");
    let tail = dev.run("operator.token", &["events", "tail", "--from", "1", "--count", "2"]);
    assert!(tail.out.starts_with("1  ") && tail.out.lines().count() == 2, "{tail:?}");

    let lines = dev.run("payments.token", &["watch", "--once"]);
    let of = |id: &str| lines.out.lines().find(|line| line.contains(&format!(" {id} "))).unwrap();
    assert!(
        of(first).starts_with("active ") && of(first).ends_with(&format!("renewed by {id}")),
        "{lines:?}"
    );
    assert!(of(id).contains(" orders expires "), "{lines:?}");
    let message = dev.run("payments.token", &["watch", "--once", "-o", "json"]);
    let message: Value = serde_json::from_str(message.out.lines().next().unwrap()).unwrap();
    assert_eq!(message["snapshot"], true);

    let released = dev.json("payments.token", &["release", id]);
    assert_eq!(released["state"], "released");
    assert_eq!(dev.json("payments.token", &["release", id]), released);
    let table = dev.run("payments.token", &["release", first]);
    assert!(table.out.contains("state       released") && table.out.contains("renewed by"), "{table:?}");
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
    let (listed, policy) = (dev.path("leases.json"), dev.path("policy").display().to_string());
    fs::write(&listed, dev.run("operator.token", &["leases", "list", "-o", "json"]).out).unwrap();
    let same = run(&["policy", "diff", &policy, &policy, "--leases", &listed.display().to_string()]);
    assert!(same.code == 0 && same.out.ends_with(", no change\n"), "{same:?}");
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
    let holds = dev.json("operator.token", &["revocations", "list", "--holds", "--in-force", "--limit", "1"]);
    assert_eq!((&holds["rules"][0]["id"], &holds["more"]), (&rule["id"], &false.into()));
    let lift = ["revocations", "lift", rule["id"].as_str().unwrap(), "--reason", "the drill is over"];
    let lifted = dev.json("operator.token", &lift);
    assert_eq!((&lifted["repeated"], &lifted["can_reissue"]), (&false.into(), &true.into()));
    assert_eq!(lifted["rule"]["lifted"]["reason"], "the drill is over");
    assert_eq!(dev.json("operator.token", &lift)["repeated"], true);
    assert_eq!(dev.run("payments.token", &["issue", "--target", "orders"]).code, 0);
    assert_eq!(dev.introspect(credential, &["--require-active"]).code, 1);
    let table = dev.run("operator.token", &["revocations", "list"]);
    assert!(table.code == 0 && table.out.contains("hold, lifted"), "{table:?}");
    let keys: Value = serde_json::from_str(
        &run(&["keys", "--server", &dev.server, "--ca-file", &dev.path("ca.crt").display().to_string()]).out,
    )
    .unwrap();
    // There are EdDSA keys too, in the order of their ids.
    let keys = keys["keys"].as_array().unwrap();
    assert!(keys.iter().any(|key| key["alg"] == "ES256"), "{keys:?}");

    let folder = dev.stop();
    let store = folder.path().join("store").display().to_string();
    let whole = run(&["store", "verify", &store]);
    assert!(whole.code == 0 && whole.out.ends_with("whole\n"), "{whole:?}");
    let config = folder.path().join("dayfly.toml").display().to_string();
    assert_eq!(run(&["serve", "--check", "--config", &config]).code, 0);
}
