//! What is accepted, what is refused, and where the problem is said to be.

use dayfly_core::provenance::Labels;
use dayfly_policy::{File, Loaded, Ownership, Reserved, Severity, load, load_folder, load_folder_after};

const OWNER: &str = "\
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: payments}
spec:
  displayName: Payments
  contacts: [payments@example.com]
  namespaces: {names: [payments]}
";
const TARGET: &str = "\
apiVersion: dayfly.dev/v1alpha1
kind: Target
metadata: {name: orders}
spec:
  jwt: {audiences: ['https://orders.example']}
  maxTtl: 1h
  ceiling:
    - namespaces: [payments]
      scopes: [orders:read, orders:write]
";
const GRANT: &str = "\
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: orders, namespace: payments, labels: {team: payments}}
spec:
  serviceAccounts: [api]
  target: orders
  scope: [orders:read]
  defaultTtl: 5m
  maxTtl: 15m
";

fn load_one(text: &str) -> Loaded {
    load(&[file("policy.yaml", text)], &Reserved::default())
}

fn file(name: &str, text: &str) -> File {
    File { name: name.to_owned(), text: text.to_owned() }
}

fn joined(documents: &[&str]) -> String {
    documents.join("---\n")
}

fn shown(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn reads_every_kind_from_one_file() {
    let loaded = load_one(&joined(&["# a comment only\n", OWNER, TARGET, GRANT, ""]));
    assert_eq!(shown(&loaded), [""; 0]);
    let counts = (loaded.set.owners().count(), loaded.set.targets().count(), loaded.set.grants().count());
    assert_eq!(counts, (1, 1, 1));
    assert!(matches!(loaded.set.owner_of(&"payments".parse().unwrap(), &Labels::new()), Ownership::Owned(_)));
}

#[test]
fn problems_name_file_line_column_and_what_to_change() {
    let cases = [
        (
            "  scope: [orders:read]",
            "  scopes: [orders:read]",
            "policy.yaml:8:3: error: Grant payments/orders: ",
            "scopes",
        ),
        (
            "  maxTtl: 15m",
            "  maxTtl: 15 minutes",
            "policy.yaml:10:11: error: Grant payments/orders: ",
            "300s, 15m or 1h",
        ),
        (
            "  maxTtl: 15m",
            "  maxTtl: 2m",
            "policy.yaml:9:15: error: Grant payments/orders: ",
            "longer than maxTtl",
        ),
        ("  maxTtl: 15m", "  maxTtl: 25h", "policy.yaml:10:11: error: Grant payments/orders: ", "30s to 24h"),
        (
            "  maxTtl: 15m",
            "  maxTtl: 15m\n  conditions: ['true']",
            "policy.yaml:11:15: error: Grant payments/orders: ",
            "conditions are not built yet",
        ),
        (
            "[api]",
            "[Api]",
            "policy.yaml:6:21: error: Grant payments/orders: ",
            "\"Api\" is not a service account name",
        ),
        ("[api]", "[api, api]", "policy.yaml:6:26: error: Grant payments/orders: ", "listed twice"),
        ("[api]", "[]", "policy.yaml:6:20: error: Grant payments/orders: ", "1 to 256"),
        (
            "namespace: payments",
            "namespace: Payments",
            "policy.yaml:4:37: error: Grant Payments/orders: ",
            "not a namespace",
        ),
        (", namespace: payments", "", "policy.yaml:4:1", "belongs to one"),
        ("kind: Grant", "kind: Grants", "policy.yaml:3:7: error: ", "Owner, Target and Grant"),
        ("  maxTtl: 15m", "  maxTtl: 15m\n  maxTtl: 1h", "policy.yaml:11:3: error: Grant", "maxTtl"),
        ("  target: orders", "  target: [", "policy.yaml:", "error"),
    ];
    for (from, to, start, part) in cases {
        let loaded = load_one(&format!("---\n{}", GRANT.replace(from, to)));
        let problems = shown(&loaded);
        println!("{problems:?}");
        assert!(problems[0].starts_with(start) && problems[0].contains(part), "{to}: {problems:?}");
        assert_eq!(loaded.set.grants().count(), 0, "{to}");
    }
}

#[test]
fn one_broken_object_does_not_freeze_the_others() {
    for broken in
        ["kind: [\n", "}\n", "\t- x\n", "a: *b\n", "just text\n", &GRANT.replace("scope:", "scopes:")]
    {
        let loaded = load_one(&joined(&[OWNER, broken, TARGET]));
        assert_eq!(loaded.problems.len(), 1, "{broken}: {:?}", shown(&loaded));
        assert!(loaded.problems[0].line > 8, "{broken}: {:?}", shown(&loaded));
        assert_eq!((loaded.set.owners().count(), loaded.set.targets().count()), (1, 1), "{broken}");
    }
}

#[test]
fn values_are_what_the_api_server_would_take_them_for() {
    for broken in [
        TARGET.replace("maxTtl: 1h", "maxTtl: 1h\n  unboundTokens: yes"),
        TARGET.replace("name: orders", "name: 123"),
        OWNER.replace("displayName: Payments", "displayName: true"),
        OWNER.replace("displayName: Payments", "<<: {displayName: Payments}"),
    ] {
        assert_eq!(load_one(&broken).problems.len(), 1, "{broken}");
    }
}

#[test]
fn aliases_do_not_multiply() {
    let levels = ["b", "c", "d", "e", "f", "g"].iter().zip(["a", "b", "c", "d", "e", "f"]);
    let levels =
        levels.map(|(name, of)| format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 10].join(", ")));
    let bomb: String =
        ["a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned()].into_iter().chain(levels).collect();
    assert_eq!(load_one(&bomb).problems.len(), 1);
    assert_eq!(load_one(&"[".repeat(100_000)).problems.len(), 1);
}

#[test]
fn two_objects_of_one_name_are_both_invalid() {
    let other = GRANT.replace("orders:read", "orders:write");
    for (second, grants) in [
        (&other, 0),
        (&GRANT.replace("scope:", "scopes:"), 0),
        (&GRANT.replace("namespace: payments", "namespace: other"), 2),
    ] {
        let files =
            [file("a.yaml", GRANT), file("b.yaml", second), file("c.yaml", &joined(&[OWNER, TARGET]))];
        let loaded = load(&files, &Reserved::default());
        assert_eq!(loaded.set.grants().count(), grants, "{:?}", shown(&loaded));
    }
    let loaded = load(&[file("a.yaml", GRANT), file("b.yaml", &other)], &Reserved::default());
    assert!(
        shown(&loaded)[0].starts_with("a.yaml:3:18: error: Grant payments/orders: "),
        "{:?}",
        shown(&loaded)
    );
    assert!(shown(&loaded)[0].contains("b.yaml:1"), "{:?}", shown(&loaded));
    assert_eq!(load_one(&joined(&[GRANT, GRANT])).set.grants().count(), 0);
}

#[test]
fn a_namespace_of_two_owners_is_owned_by_nobody_and_both_are_told() {
    let other = OWNER.replace("name: payments", "name: checkout").replace("[payments]}", "[shop, payments]}");
    let loaded = load_one(&joined(&[OWNER, &other]));
    assert_eq!(loaded.set.owner_of(&"payments".parse().unwrap(), &Labels::new()), Ownership::Ambiguous);
    assert!(matches!(loaded.set.owner_of(&"shop".parse().unwrap(), &Labels::new()), Ownership::Owned(_)));
    assert_eq!(loaded.set.owner_of(&"other".parse().unwrap(), &Labels::new()), Ownership::Unowned);
    let problems = shown(&loaded);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("policy.yaml:7:") && problems[0].contains("checkout: nobody owns it"),
        "{problems:?}"
    );
    assert!(
        problems[1].starts_with("policy.yaml:15:30") && problems[1].contains("payments: nobody owns it"),
        "{problems:?}"
    );
}

/// Otherwise a second definition of the one would hand the namespace to the other.
#[test]
fn an_owner_defined_twice_still_contests_its_namespaces() {
    let other = OWNER.replace("name: payments}", "name: checkout}");
    let loaded = load_one(&joined(&[OWNER, &other, &other]));
    assert_eq!(loaded.set.owner_of(&"payments".parse().unwrap(), &Labels::new()), Ownership::Ambiguous);
    assert_eq!(loaded.problems.len(), 3, "{:?}", shown(&loaded));
    assert!(shown(&loaded)[0].contains("one that is defined twice, or invalid"), "{:?}", shown(&loaded));
}

#[test]
fn a_grant_beyond_its_target_is_kept_with_a_warning() {
    let cases = [
        (GRANT.replace("target: orders", "target: ledger"), "no valid Target ledger"),
        (GRANT.replace("[orders:read]", "[orders:read, orders:admin]"), "orders:admin is above"),
        (GRANT.replace("maxTtl: 15m", "maxTtl: 2h"), "is cut to the target's 3600 s"),
        (
            GRANT.replace("maxTtl: 15m", "maxTtl: 15m\n  audience: https://other.example"),
            "is not one of the target's",
        ),
    ];
    for (grant, part) in cases {
        let loaded = load_one(&joined(&[OWNER, TARGET, &grant]));
        let problems = shown(&loaded);
        assert!(problems.len() == 1 && problems[0].contains(part), "{problems:?}");
        assert_eq!(loaded.problems[0].severity, Severity::Warning);
        assert_eq!(loaded.set.grants().count(), 1);
    }
}

#[test]
fn a_target_may_not_have_an_audience_of_ours_or_of_an_api_server() {
    let reserved =
        Reserved { audiences: ["https://orders.example".parse().unwrap()].into(), ..Reserved::default() };
    let loaded = load(&[file("t.yaml", TARGET)], &reserved);
    assert_eq!(loaded.set.targets().count(), 0);
    assert!(shown(&loaded)[0].starts_with("t.yaml:5:21: error: Target orders: "), "{:?}", shown(&loaded));
}

#[test]
fn ceiling_entries_name_either_namespaces_or_owners() {
    for entry in [
        "    - scopes: [a]",
        "    - {namespaces: [a], owners: [b], scopes: [a]}",
        "    - {owners: ['*'], scopes: [a]}",
    ] {
        let text =
            TARGET.replace("    - namespaces: [payments]\n      scopes: [orders:read, orders:write]", entry);
        assert_eq!(load_one(&text).set.targets().count(), 0, "{entry}");
    }
}

/// There are no patterns: `*` is refused where a name stands, and means itself where any text may.
#[test]
fn nothing_is_a_wildcard() {
    let refused = [
        OWNER.replace("[payments]}", "['*']}"),
        OWNER.replace("names: [payments]", "labels: [{team: '*'}]"),
        OWNER.replace("names: [payments]", "labels: [{'*': payments}]"),
        OWNER.replace("names: [payments]", "labels: [{}]"),
        format!("{OWNER}  delegates: [{{owner: '*', serviceAccounts: [a]}}]\n"),
        format!("{OWNER}  delegates: [{{owner: a, serviceAccounts: ['*']}}]\n"),
        format!("{OWNER}  delegates: [{{owner: a, labels: [{{}}]}}]\n"),
        format!(
            "{OWNER}  delegates: [{{owner: a, controllers: [{{apiVersion: v1, kind: '*', name: a}}]}}]\n"
        ),
        TARGET.replace("namespaces: [payments]", "namespaces: ['*']"),
        TARGET.replace("namespaces: [payments]", "owners: ['*']"),
        TARGET.replace("      scopes:", "      serviceAccounts: ['*']\n      scopes:"),
        TARGET.replace("      scopes:", "      claims: {'*': [a]}\n      scopes:"),
        GRANT.replace("[api]", "['*']"),
        GRANT.replace("[api]", "[api]\n  serviceAccountLabels: [{app: '*'}]"),
        GRANT.replace("[api]", "[api]\n  claims: {'*': a}"),
        GRANT.replace("target: orders", "target: '*'"),
    ];
    for text in refused {
        let loaded = load_one(&text);
        let objects =
            loaded.set.owners().count() + loaded.set.targets().count() + loaded.set.grants().count();
        assert!(objects == 0 && !loaded.problems.is_empty(), "{text}");
    }
    let star =
        TARGET.replace("scopes: [orders:read, orders:write]", "scopes: ['*']\n      claims: {tier: ['*']}");
    let claims = GRANT.replace("[orders:read]", "[orders:read]\n  claims: {tier: gold}");
    let problems = shown(&load_one(&joined(&[OWNER, &star, &claims])));
    let above = |part: &str| problems.iter().any(|problem| problem.contains(part));
    assert!(above("orders:read is above") && above("tier: gold is above"), "{problems:?}");
}

#[test]
fn what_each_kind_says_is_checked() {
    let delegates = |text: &str| format!("{OWNER}  delegates: [{text}]\n");
    let claims = |text: &str| GRANT.replace("[api]", &format!("[api]\n  claims: {{{text}}}"));
    let entry = |text: &str| TARGET.replace("      scopes:", &format!("      {text}\n      scopes:"));
    let many: Vec<_> = (0..33).map(|n| format!("c{n}: a")).collect();
    let long =
        format!("a: [{}]", (0..5).map(|n| format!("{n}{}", "x".repeat(500))).collect::<Vec<_>>().join(", "));
    let cases = [
        (OWNER.replace("name: payments}", "name: unowned}"), "metadata.name: is reserved"),
        (
            delegates("{owner: payments, serviceAccounts: [a]}"),
            "spec.delegates[0].owner: is this Owner itself",
        ),
        (delegates("{owner: unowned, serviceAccounts: [a]}"), "spec.delegates[0].owner: is reserved"),
        (delegates("{owner: a}"), "names exactly one of labels"),
        (delegates("{owner: a, serviceAccounts: [a], labels: [{b: c}]}"), "names exactly one of labels"),
        (delegates("{owner: a, serviceAccount: [a]}"), "unknown field"),
        (
            delegates("{owner: a, controllers: [{apiVersion: v1, kind: '', name: a}]}"),
            "controllers[0].kind: must be",
        ),
        (delegates("{owner: a, labels: [{'a b': c}]}"), "is not a label's key"),
        (
            OWNER.replace("names: [payments]", "labels: [{a: b}, {a: b}]"),
            "spec.namespaces.labels[1]: is listed twice",
        ),
        (claims("sub: admin"), "spec.claims: sub cannot be set"),
        (claims("SCOPE: admin"), "SCOPE cannot be set"),
        (claims("cnf: a"), "cnf cannot be set"),
        (claims("act: a"), "act cannot be set"),
        (claims("may_act: a"), "may_act cannot be set"),
        (claims("dayfly: a"), "dayfly cannot be set"),
        (claims("status: a"), "status cannot be set"),
        (claims("client_id: a, azp: b"), "azp cannot be set"),
        (claims("'a\u{0441}t': b"), "is not a claim's name"),
        (claims("tier: {a: b}"), "expected a string or a list of strings"),
        (claims("tier: 1"), "expected a string or a list of strings"),
        (claims("tier: []"), "tier is an empty list"),
        (claims("tier: [a, a]"), "lists a twice"),
        (claims("tier: ''"), "has a value that is not 1 to 512 bytes"),
        (claims(&many.join(", ")), "has 33 entries"),
        (claims(&long), "at most 2048"),
        (GRANT.replace("serviceAccounts: [api]", "serviceAccounts: []"), "1 to 256"),
        (entry("claims: {sub: [a]}"), "sub cannot be set"),
        (entry("claims: {tier: []}"), "tier allows no value"),
        (entry("unboundTokens: true"), "spec.ceiling[0].unboundTokens: is above spec.unboundTokens"),
        (entry("liveLeases: {perPod: 0}"), "spec.ceiling[0].liveLeases.perPod: is 0"),
        (entry("liveLeases: {perPods: 1}"), "unknown field"),
        (TARGET.replace("  maxTtl", "  liveLeases: {total: 0}\n  maxTtl"), "spec.liveLeases.total: is 0"),
        (TARGET.replace("  maxTtl", "  liveLeases: {total: -1}\n  maxTtl"), "error: Target orders"),
    ];
    for (text, part) in cases {
        let loaded = load_one(&text);
        let problems = shown(&loaded);
        assert!(problems.iter().any(|problem| problem.contains(part)), "{text}\n{problems:?}");
        let objects =
            loaded.set.owners().count() + loaded.set.targets().count() + loaded.set.grants().count();
        assert_eq!(objects, 0, "{text}");
    }
}

/// What it claims stays nobody's: a broken object hands nothing to a rival, nor to the grace for the unowned.
#[test]
fn an_invalid_owner_still_contests_what_it_claims() {
    let rival = OWNER
        .replace("name: payments}", "name: checkout}")
        .replace("names: [payments]", "labels: [{team: a}]");
    let labels: Labels = [("team".to_owned(), "a".to_owned())].into();
    let of = |broken: &str, labels: &Labels| {
        load_one(&joined(&[&rival, broken])).set.owner_of(&"payments".parse().unwrap(), labels)
    };
    assert!(matches!(of("", &labels), Ownership::Owned(_)));
    for broken in [
        OWNER.replace("displayName: Payments", "displayName: ''"),
        OWNER.replace("displayName: Payments", "display: a"),
        OWNER.replace("names: [payments]", "labels: [{team: a}], typo: 1"),
        // What cannot be read leaves the rest of its claims.
        OWNER.replace("names: [payments]", "names: [payments], labels: [{team: a, tier: 1}]"),
        OWNER.replace("names: [payments]", "labels: [{team: a}, {tier: 1}, 7, {other: [1]}]"),
        OWNER.replace("names: [payments]", "labels: [{team: a, tier: [1]}]"),
        OWNER.replace("names: [payments]", "labels: {team: a}"),
        OWNER.replace("names: [payments]", "names: [payments, 2048, {a: b}, ~]"),
        OWNER.replace("names: [payments]", "names: payments"),
        OWNER.replace("{names: [payments]}", "[payments]"),
        OWNER.replace("{names: [payments]}", "payments"),
        OWNER.replace("names: [payments]", "names: [other], names: [payments]"),
        OWNER.replace("names: [payments]", "names: &a [payments], more: *a"),
        OWNER.replace("names: [payments]", "<<: {labels: [{team: a}]}, names: [payments]"),
        // Nor does what it says it is.
        OWNER.replace("name: payments}", "name: 123}"),
        OWNER.replace("name: payments}", "name: [a]}"),
        OWNER.replace("metadata: {name: payments}\n", ""),
        OWNER.replace("v1alpha1", "v1"),
        OWNER.replace("apiVersion: dayfly.dev/v1alpha1\n", ""),
        OWNER.replace("kind: Owner", "kind: Owners"),
        OWNER.replace("kind: Owner", "kind: Target"),
        OWNER.replace("kind: Owner", "kind: [Owner]"),
        OWNER.replace("kind: Owner\n", ""),
    ] {
        assert_eq!(of(&broken, &labels), Ownership::Ambiguous, "{broken}");
    }
    // A name that YAML takes for a number is the name that stands there.
    for name in ["2048", "0x10", "12e4", "true"] {
        let set = load_one(&OWNER.replace("[payments]", &format!("[{name}]"))).set;
        assert_eq!(set.owner_of(&name.parse().unwrap(), &Labels::new()), Ownership::Ambiguous, "{name}");
    }
    assert_eq!(of("", &Labels::new()), Ownership::Unowned);
}

/// Nothing of it reads, or not its claims: then what it claimed when it was valid stays nobody's.
#[test]
fn an_owner_that_does_not_read_any_more_still_contests_what_it_claimed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let rival = OWNER
        .replace("name: payments}", "name: checkout}")
        .replace("names: [payments]", "labels: [{team: a}]");
    let labels: Labels = [("team".to_owned(), "a".to_owned())].into();
    let of = |loaded: &Loaded| loaded.set.owner_of(&"payments".parse().unwrap(), &labels);
    let owner = |loaded: &Loaded| match of(loaded) {
        Ownership::Owned(owners) => owners.namespace.to_string(),
        other => format!("{other:?}"),
    };
    write("rival.yaml", &rival);
    write("owner.yaml", &joined(&[OWNER, TARGET]));
    let reload =
        |before: &Loaded| load_folder_after(folder.path(), &Reserved::default(), Some(&before.set)).unwrap();
    let good = load_folder(folder.path(), &Reserved::default()).unwrap();
    assert_eq!(owner(&good), "payments");
    let mut last = good;
    for broken in [
        "spec: [",
        "\u{0}",
        &OWNER.replace("spec:", "spec: ["),
        &OWNER.replace("  namespaces:", "  namespace:"),
        &OWNER.replace("spec:", "specs:"),
        &"#".repeat(1024 * 1024 + 1),
    ] {
        write("owner.yaml", &joined(&[broken, TARGET]));
        last = reload(&last);
        assert_eq!(owner(&last), "Ambiguous", "{broken:.200}");
        // Not only at once.
        last = reload(&last);
        assert_eq!(owner(&last), "Ambiguous", "{broken:.200}");
    }
    std::fs::write(folder.path().join("owner.yaml"), [0xff, 0xfe]).unwrap();
    last = reload(&last);
    assert_eq!(owner(&last), "Ambiguous");

    // It says so, where it is; and where it was never read, that too.
    let told =
        |loaded: &Loaded| loaded.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    write("owner.yaml", "spec: [");
    let kept = told(&reload(&last));
    assert!(
        kept.contains("owner.yaml:") && kept.contains("what Owner payments claimed stays nobody's"),
        "{kept}"
    );
    let first = told(&load_folder(folder.path(), &Reserved::default()).unwrap());
    assert!(first.contains("; what it claims, if it is an Owner, is not known"), "{first}");

    // A removal always applies, and so does a valid change: in this file, or another.
    for (name, text, expected) in [
        ("owner.yaml", TARGET.to_owned(), "checkout"),
        ("owner.yaml", OWNER.replace("[payments]", "[other]"), "checkout"),
        ("other.yaml", OWNER.replace("[payments]", "[other]"), "checkout"),
        ("owner.yaml", joined(&[TARGET, &GRANT.replace("scope:", "scopes:")]), "checkout"),
        ("owner.yaml", OWNER.to_owned(), "payments"),
    ] {
        write(name, &text);
        assert_eq!(owner(&reload(&last)), expected, "{text}");
        let _ = std::fs::remove_file(folder.path().join("other.yaml"));
        write("owner.yaml", "spec: [");
    }
    std::fs::remove_file(folder.path().join("owner.yaml")).unwrap();
    assert_eq!(owner(&reload(&last)), "checkout");
}

#[test]
fn delegates_and_owners_without_effect_are_warned_of() {
    let sub =
        OWNER.replace("name: payments}", "name: ledger}").replace("  namespaces: {names: [payments]}\n", "");
    let delegating = format!("{OWNER}  delegates: [{{owner: ledger, serviceAccounts: [a]}}]\n");
    assert_eq!(shown(&load_one(&joined(&[&delegating, &sub]))), [""; 0]);
    let alone = load_one(&sub);
    assert!(shown(&alone)[0].contains("it answers for nothing"), "{:?}", shown(&alone));
    let nobody = load_one(&delegating);
    assert!(shown(&nobody)[0].contains("there is no valid Owner ledger"), "{:?}", shown(&nobody));
    for loaded in [alone, nobody] {
        assert_eq!((loaded.problems[0].severity, loaded.set.owners().count()), (Severity::Warning, 1));
    }
}

#[test]
fn a_folder_is_read_whole_without_hidden_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("owner.yaml", OWNER);
    write("targets/orders.yml", TARGET);
    write(".hidden.yaml", "}");
    write("notes.txt", "}");
    write("bad.yaml", "\u{0}");
    std::fs::write(folder.path().join("binary.yaml"), [0xff, 0xfe]).unwrap();
    std::os::unix::fs::symlink(folder.path().join("notes.txt"), folder.path().join("link.yaml")).unwrap();
    let loaded = load_folder(folder.path(), &Reserved::default()).unwrap();
    assert_eq!((loaded.set.owners().count(), loaded.set.targets().count()), (1, 1));
    let files: Vec<_> = loaded.problems.iter().map(|problem| problem.file.as_str()).collect();
    assert_eq!(files, ["bad.yaml", "binary.yaml", "link.yaml"]);
    assert!(load_folder(&folder.path().join("none"), &Reserved::default()).is_err());
}

#[test]
fn a_mounted_config_map_is_read_once_from_its_current_version() {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("..2026_11_23");
    std::fs::create_dir(&version).unwrap();
    std::fs::write(version.join("owner.yaml"), OWNER).unwrap();
    std::os::unix::fs::symlink("..2026_11_23", folder.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/owner.yaml", folder.path().join("owner.yaml")).unwrap();
    let loaded = load_folder(folder.path(), &Reserved::default()).unwrap();
    assert_eq!(shown(&loaded), [""; 0]);
    assert_eq!(loaded.set.owners().count(), 1);
}

#[test]
fn a_file_that_is_too_large_is_a_problem_of_that_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large.yaml"), "#".repeat(1024 * 1024 + 1)).unwrap();
    std::fs::write(folder.path().join("owner.yaml"), OWNER).unwrap();
    let loaded = load_folder(folder.path(), &Reserved::default()).unwrap();
    assert_eq!(
        shown(&loaded),
        [
            "large.yaml: error: is larger than 1 MiB: split it; what it claims, if it is an Owner, is not known"
        ]
    );
    assert_eq!(loaded.set.owners().count(), 1);
}

#[test]
fn comments_and_layout_do_not_make_a_new_generation() {
    let one = load_one(&joined(&[OWNER, TARGET])).set.generation();
    assert_eq!(load_one(&joined(&["# moved\n", TARGET, OWNER])).set.generation(), one);
    assert_ne!(load_one(&joined(&[OWNER, &TARGET.replace("1h", "2h")])).set.generation(), one);
    assert_ne!(load_one(OWNER).set.generation(), one);
}
