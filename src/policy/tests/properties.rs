//! What holds for every policy: narrower never gives more, order never matters, an invalid object never widens, and
//! no life is above any of its bounds.

#![expect(clippy::unwrap_used, reason = "fixtures of tests")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use dayfly_core::live::LiveCaps;
use dayfly_core::provenance::{Labels, ObjectRef};
use dayfly_core::time::Timestamp;
use dayfly_policy::{
    Decision, File, Loaded, PolicySet, Question, Reserved, Severity, TopController, UnownedGrace, Verdict,
    load, load_folder, load_folder_after,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const OWNERS: [&str; 3] = ["x", "y", "z"];
const ACCOUNTS: [&str; 2] = ["s", "t"];
const TARGETS: [&str; 2] = ["m", "n"];
const SCOPES: [&str; 3] = ["read", "write", "drop"];
const AUDIENCES: [&str; 2] = ["https://p", "https://q"];
const TTLS: [u64; 5] = [30, 60, 300, 900, 3600];
const TIERS: [&str; 2] = ["gold", "tin"];
/// Labels of namespaces, pods and service accounts: `team: one`, ...
const TEAMS: [&str; 2] = ["one", "two"];
const NOW: u64 = 1_795_435_200;

#[derive(Debug, Clone)]
struct Model {
    owners: Vec<Owner>,
    targets: Vec<Target>,
    grants: Vec<Grant>,
}

#[derive(Debug, Clone)]
struct Owner {
    name: &'static str,
    names: Vec<&'static str>,
    teams: Vec<&'static str>,
    delegates: Vec<Delegate>,
}

#[derive(Debug, Clone)]
struct Delegate {
    owner: &'static str,
    how: &'static str,
}

#[derive(Debug, Clone)]
struct Target {
    name: &'static str,
    audiences: Vec<&'static str>,
    max_ttl: u64,
    unbound: bool,
    ceiling: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    namespaces: Option<Vec<&'static str>>,
    owners: Vec<&'static str>,
    scopes: Vec<&'static str>,
    audiences: Option<Vec<&'static str>>,
    max_ttl: Option<u64>,
    tiers: Vec<&'static str>,
    accounts: Option<Vec<&'static str>>,
    unbound: Option<bool>,
    live: Option<u32>,
}

#[derive(Debug, Clone)]
struct Grant {
    name: usize,
    namespace: &'static str,
    accounts: Vec<&'static str>,
    target: &'static str,
    scope: Vec<&'static str>,
    audience: Option<&'static str>,
    default_ttl: u64,
    max_ttl: u64,
    unbound: bool,
    team: Option<&'static str>,
    tiers: Vec<&'static str>,
    audit: bool,
}

impl Model {
    /// Each object as a document of its own.
    fn documents(&self) -> Vec<String> {
        let head = |kind, name: &str, namespace: &str| {
            format!(
                "apiVersion: dayfly.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\nspec:\n"
            )
        };
        let owners = self.owners.iter().map(|owner| {
            let mut text = head("Owner", owner.name, "");
            let teams: Vec<_> = owner.teams.iter().map(|team| format!("{{team: {team}}}")).collect();
            let names = list(&owner.names);
            let _ = writeln!(
                text,
                "  displayName: D\n  contacts: [c]\n  namespaces: {{names: {names}, labels: [{}]}}",
                teams.join(", ")
            );
            let delegates = owner.delegates.iter().map(|d| format!("{{owner: {}, {}}}", d.owner, d.how));
            let _ = writeln!(text, "  delegates: [{}]", delegates.collect::<Vec<_>>().join(", "));
            text
        });
        let targets = self.targets.iter().map(|target| {
            let mut text = head("Target", target.name, "");
            let _ = writeln!(text, "  jwt: {{audiences: {}}}", list(&target.audiences));
            let _ = writeln!(
                text,
                "  maxTtl: {}s\n  unboundTokens: {}\n  ceiling:",
                target.max_ttl, target.unbound
            );
            for entry in &target.ceiling {
                let whose = match &entry.namespaces {
                    Some(namespaces) => format!("namespaces: {}", list(namespaces)),
                    None => format!("owners: {}", list(&entry.owners)),
                };
                let audiences = entry.audiences.as_ref().map(|a| format!(", audiences: {}", list(a)));
                let ttl = entry.max_ttl.map(|ttl| format!(", maxTtl: {ttl}s")).unwrap_or_default();
                let audiences = audiences.unwrap_or_default();
                let claims = if entry.tiers.is_empty() {
                    String::new()
                } else {
                    format!(", claims: {{tier: {}}}", list(&entry.tiers))
                };
                let accounts = entry.accounts.as_ref().map(|a| format!(", serviceAccounts: {}", list(a)));
                let accounts = accounts.unwrap_or_default();
                let unbound = entry.unbound.map(|u| format!(", unboundTokens: {u}")).unwrap_or_default();
                let live = entry.live.map(|n| format!(", liveLeases: {{perPod: {n}, total: {n}}}"));
                let live = live.unwrap_or_default();
                let scopes = list(&entry.scopes);
                let more = format!("{audiences}{ttl}{claims}{accounts}{unbound}{live}");
                let _ = writeln!(text, "    - {{{whose}, scopes: {scopes}{more}}}");
            }
            if target.ceiling.is_empty() {
                text.push_str("    []\n");
            }
            text
        });
        let grants = self.grants.iter().map(|grant| {
            let mut text =
                head("Grant", &format!("g{}", grant.name), &format!(", namespace: {}", grant.namespace));
            let _ =
                writeln!(text, "  serviceAccounts: {}\n  target: {}", list(&grant.accounts), grant.target);
            let _ = writeln!(text, "  scope: {}\n  unboundTokens: {}", list(&grant.scope), grant.unbound);
            let _ = writeln!(text, "  defaultTtl: {}s\n  maxTtl: {}s", grant.default_ttl, grant.max_ttl);
            if let Some(team) = grant.team {
                let _ = writeln!(text, "  serviceAccountLabels: [{{team: {team}}}]");
            }
            if !grant.tiers.is_empty() {
                let _ = writeln!(text, "  claims: {{tier: {}}}", list(&grant.tiers));
            }
            if grant.audit {
                text.push_str("  mode: Audit\n");
            }
            if let Some(audience) = grant.audience {
                let _ = writeln!(text, "  audience: '{audience}'");
            }
            text
        });
        owners.chain(targets).chain(grants).collect()
    }

    fn load(&self) -> Loaded {
        of_documents(&self.documents())
    }
}

fn list(items: &[&str]) -> String {
    format!("[{}]", items.iter().map(|item| format!("'{item}'")).collect::<Vec<_>>().join(", "))
}

fn of_documents(documents: &[String]) -> Loaded {
    load(&[File { name: "all.yaml".to_owned(), text: documents.join("---\n") }], &Reserved::default())
}

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(of, 1..=of.len())
}

fn target(name: &'static str) -> impl Strategy<Value = Target> {
    let entry = (
        prop::option::of(some(&NAMESPACES)),
        some(&OWNERS),
        some(&SCOPES),
        prop::option::weighted(0.3, select(&AUDIENCES)),
        prop::option::of(select(&TTLS)),
        (
            prop_oneof![3 => Just(TIERS.to_vec()), 1 => subsequence(&TIERS, 0..=1)],
            prop::option::weighted(0.2, some(&ACCOUNTS)),
            prop::option::weighted(0.3, any::<bool>()),
            prop::option::weighted(0.3, 1u32..5),
        ),
    );
    let parts = (some(&AUDIENCES), select(&TTLS), any::<bool>(), prop::collection::vec(entry, 0..4));
    parts.prop_map(move |(audiences, max_ttl, unbound, entries)| {
        let ceiling =
            entries.into_iter().map(|(namespaces, owners, scopes, audience, max_ttl, more)| Entry {
                namespaces,
                owners,
                scopes,
                audiences: audience.filter(|a| audiences.contains(a)).map(|a| vec![a]),
                max_ttl,
                tiers: more.0,
                accounts: more.1,
                unbound: more.2.map(|accepts| accepts && unbound),
                live: more.3,
            });
        Target { name, ceiling: ceiling.collect(), audiences, max_ttl, unbound }
    })
}

fn grant() -> impl Strategy<Value = Grant> {
    let parts = (
        select(&NAMESPACES),
        some(&ACCOUNTS),
        select(&TARGETS),
        some(&SCOPES),
        prop::option::weighted(0.3, select(&AUDIENCES)),
        (select(&TTLS), select(&TTLS)),
        any::<bool>(),
        (
            prop::option::weighted(0.2, select(&TEAMS)),
            prop_oneof![3 => Just(Vec::new()), 1 => subsequence(&TIERS, 1..=2)],
            prop::bool::weighted(0.15),
        ),
    );
    parts.prop_map(|(namespace, accounts, target, scope, audience, (one, other), unbound, more)| Grant {
        team: more.0,
        tiers: more.1,
        audit: more.2,
        name: 0,
        namespace,
        accounts,
        target,
        scope,
        audience,
        default_ttl: one.min(other),
        max_ttl: one.max(other),
        unbound,
    })
}

/// Mostly one owner for each namespace, sometimes none or two; sometimes by label, sometimes with delegates.
fn owners() -> impl Strategy<Value = Vec<Owner>> {
    let of_one = prop_oneof![
        8 => subsequence(&OWNERS, 1),
        1 => Just(Vec::new()),
        1 => subsequence(&OWNERS, 2),
    ];
    let delegate = (select(&OWNERS), select(&HOWS)).prop_map(|(owner, how)| Delegate { owner, how });
    let more = (
        prop_oneof![3 => Just(Vec::new()), 1 => subsequence(&TEAMS, 1..=2)],
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(delegate, 1..3)],
    );
    let names = prop::collection::vec(of_one, NAMESPACES.len());
    (names, prop::collection::vec(more, OWNERS.len())).prop_map(|(owned, more)| {
        let names = |owner| NAMESPACES.into_iter().zip(&owned).filter(move |(_, by)| by.contains(owner));
        let owners = OWNERS.iter().zip(more).map(|(owner, (teams, delegates))| Owner {
            name: owner,
            names: names(owner).map(|(name, _)| name).collect::<Vec<_>>(),
            teams,
            delegates: delegates.into_iter().filter(|delegate| delegate.owner != *owner).collect(),
        });
        owners.filter(|owner| !owner.names.is_empty()).collect()
    })
}

const HOWS: [&str; 4] = [
    "labels: [{team: one}]",
    "labels: [{team: two}, {team: one, tier: x}]",
    "serviceAccounts: [s]",
    "controllers: [{apiVersion: apps/v1, kind: Deployment, name: d}]",
];

fn model() -> impl Strategy<Value = Model> {
    let targets = (target("m"), target("n")).prop_map(|(m, n)| vec![m, n]);
    (owners(), targets, prop::collection::vec(grant(), 1..6)).prop_map(|(owners, targets, mut grants)| {
        grants.iter_mut().enumerate().for_each(|(n, grant)| grant.name = n);
        Model { owners, targets, grants }
    })
}

/// A question, mostly about something that a Grant of the model is about.
#[derive(Debug, Clone)]
struct Ask {
    about: Option<prop::sample::Index>,
    account: &'static str,
    named: bool,
    scope: Vec<&'static str>,
    audience: Option<&'static str>,
    ttl: Option<u64>,
    key_ends_in: Option<u64>,
    bound: bool,
    elsewhere: bool,
    teams: [Option<&'static str>; 3],
    controlled: bool,
    grace: Option<u64>,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let parts = (
        (prop::option::weighted(0.9, any::<prop::sample::Index>()), select(&ACCOUNTS), any::<bool>()),
        subsequence(&SCOPES, 0..=2),
        prop::option::of(select(&AUDIENCES)),
        prop::option::of(select(&TTLS)),
        prop::option::weighted(0.2, select(&TTLS)),
        prop::bool::weighted(0.8),
        (
            prop::bool::weighted(0.1),
            prop::array::uniform3(prop::option::weighted(0.4, select(&TEAMS))),
            any::<bool>(),
            prop::option::weighted(0.3, select(&TTLS)),
        ),
    );
    let ask =
        parts.prop_map(|((about, account, named), scope, audience, ttl, key_ends_in, bound, more)| Ask {
            elsewhere: more.0,
            teams: more.1,
            controlled: more.2,
            grace: more.3,
            about,
            account,
            named,
            scope,
            audience,
            ttl,
            key_ends_in,
            bound,
        });
    prop::collection::vec(ask, 20)
}

impl Ask {
    fn of(&self, model: &Model) -> Question {
        let grant = self.about.map(|at| at.get(&model.grants));
        let named = grant.filter(|_| self.named);
        Question {
            cluster: "east".parse().unwrap(),
            namespace: grant.map_or("c", |grant| grant.namespace).parse().unwrap(),
            namespace_labels: labels(self.teams[0]),
            service_account_labels: labels(self.teams[1]),
            pod_labels: labels(self.teams[2]),
            controller: TopController::from(self.controlled.then(|| ObjectRef {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                namespace: None,
                name: "d".to_owned(),
                uid: None,
            })),
            service_account: grant
                .filter(|_| !self.elsewhere)
                .map_or(self.account, |grant| grant.accounts[0])
                .parse()
                .unwrap(),
            bound: self.bound,
            target: grant.map_or("m", |grant| grant.target).parse().unwrap(),
            grant: named.map(|grant| format!("g{}", grant.name).parse().unwrap()),
            scope: self.scope.iter().map(|scope| scope.parse().unwrap()).collect(),
            audience: self.audience.map(|audience| audience.parse().unwrap()),
            ttl: self.ttl.map(Duration::from_secs),
            key_ends_in: self.key_ends_in.map(Duration::from_secs),
            now: Timestamp::from_secs(NOW),
            unowned: self.grace.map(|secs| UnownedGrace { until: Timestamp::from_secs(NOW + secs - 30) }),
        }
    }
}

fn labels(team: Option<&str>) -> Labels {
    team.map(|team| ("team".to_owned(), team.to_owned())).into_iter().collect()
}

/// One way to make a policy narrower; which, by the numbers. What would leave an object invalid leaves it as it is.
fn narrow(model: &mut Model, which: u8, at: usize, ttl: u64) {
    let pick = |len: usize| if len == 0 { 0 } else { at % len };
    let shorten = |list: &mut Vec<&'static str>| {
        if list.len() > 1 {
            list.remove(pick(list.len()));
        }
    };
    let target = pick(model.targets.len());
    let target = &mut model.targets[target];
    let entry = pick(target.ceiling.len());
    let grant = pick(model.grants.len());
    let grant = &mut model.grants[grant];
    match (which % 17, target.ceiling.get_mut(entry)) {
        (0, _) => shorten(&mut grant.scope),
        (1, _) => shorten(&mut grant.accounts),
        (2, _) => {
            grant.max_ttl = grant.max_ttl.min(ttl);
            grant.default_ttl = grant.default_ttl.min(ttl);
        }
        (3, _) => grant.unbound = false,
        (4, _) => target.unbound = false,
        (5, _) => target.max_ttl = target.max_ttl.min(ttl),
        (6, Some(entry)) => shorten(&mut entry.scopes),
        (7, Some(entry)) => entry.max_ttl = Some(entry.max_ttl.unwrap_or(ttl).min(ttl)),
        (8, Some(entry)) => match &mut entry.audiences {
            Some(audiences) => shorten(audiences),
            None => entry.audiences = Some(vec![target.audiences[0]]),
        },
        (9, Some(there)) if there.max_ttl.is_none() && there.live.is_none() => {
            target.ceiling.remove(entry);
        }
        (10, _) => {
            let gone = pick(model.grants.len());
            model.grants.remove(gone);
        }
        (11, Some(entry)) if !entry.tiers.is_empty() => {
            entry.tiers.remove(pick(entry.tiers.len()));
        }
        (12, Some(entry)) => match &mut entry.accounts {
            Some(accounts) => shorten(accounts),
            None => entry.accounts = Some(vec![ACCOUNTS[at % 2]]),
        },
        (13, Some(entry)) => entry.unbound = Some(false),
        (14, Some(entry)) => entry.live = Some(entry.live.unwrap_or(3).min(3)),
        (15, _) => grant.team = None,
        (16, _) => grant.audit = true,
        _ => {}
    }
}

/// A document with one thing broken: a line's value of another type, a field that there is not, one twice, a typo in a
/// field, a field gone, no YAML any more. None where nothing comes of it.
fn broken(document: &str, (how, at, what): (u8, usize, usize)) -> Option<String> {
    const VALUES: [&str; 7] = ["7", "true", "~", "[a]", "{a: b}", "0x10", "''"];
    const NOT_YAML: [&str; 5] = ["[", "{", "\t- a: 'b", "\u{0}", "&a *a"];
    let mut lines: Vec<String> = document.lines().map(str::to_owned).collect();
    let line = at % lines.len();
    let value = VALUES[what % VALUES.len()];
    let text = lines[line].clone();
    let (key, rest) = text.split_once(": ").unwrap_or((&text, ""));
    match how % 8 {
        0 => lines[line] = format!("{key}: {value}"),
        1 => {
            // A value within the line: after the n-th separator.
            let places: Vec<_> = rest.char_indices().filter(|(_, c)| "[{ ".contains(*c)).collect();
            let (place, _) = places.get(what % places.len().max(1))?;
            let end = rest[place + 1..].find([',', ']', '}', ':']).map_or(rest.len(), |end| place + 1 + end);
            lines[line] = format!("{key}: {}{value}{}", &rest[..=*place], &rest[end..]);
        }
        2 => lines
            .insert(line, format!("{}surprise: {value}", " ".repeat(text.len() - text.trim_start().len()))),
        3 => lines.insert(line, text),
        4 => lines[line] = text.replacen(':', "s:", 1),
        5 => drop(lines.remove(line)),
        6 => lines[line] = format!("{text}{}", NOT_YAML[what % NOT_YAML.len()]),
        _ => text.get(..what % (text.len() + 1))?.clone_into(&mut lines[line]),
    }
    let broken = lines.join("\n") + "\n";
    (broken != document).then_some(broken)
}

/// What was decided, asked for exactly: an undecided choice of audience or Grant is no authority of its own.
fn exactly(question: &Question, decision: &Decision) -> Question {
    Question {
        grant: Some(decision.grant.name.clone()),
        scope: decision.scope.clone(),
        audience: Some(decision.audience.clone()),
        ttl: Some(decision.ttl),
        ..question.clone()
    }
}

/// Whatever `narrow` gives, `wide` gives too, at least as long.
fn gives_no_more(narrow: &PolicySet, wide: &PolicySet, question: &Question) -> Result<(), TestCaseError> {
    if let Ok(decision) = narrow.decide(question) {
        let mut of_wide = wide.decide(&exactly(question, &decision));
        if let Ok(of_wide) = &mut of_wide {
            prop_assert!(no_more_live(decision.live, of_wide.live), "{:?}", question);
            of_wide.live = decision.live;
        }
        prop_assert_eq!(of_wide.as_ref(), Ok(&decision), "{:?}", question);
    }
    Ok(())
}

fn no_more_live(narrow: LiveCaps, wide: LiveCaps) -> bool {
    let numbers =
        |caps: LiveCaps| [caps.per_pod, caps.per_workload, caps.per_grant, caps.per_namespace, caps.total];
    let least = |number: Option<u32>| number.unwrap_or(u32::MAX);
    numbers(narrow).into_iter().zip(numbers(wide)).all(|(narrow, wide)| least(narrow) <= least(wide))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn narrower_never_gives_more(
        model in model(), asks in asks(), steps in prop::collection::vec((any::<u8>(), any::<usize>(), select(&TTLS)), 1..4)
    ) {
        let mut narrower = model.clone();
        for (which, at, ttl) in steps {
            if !narrower.grants.is_empty() {
                narrow(&mut narrower, which, at, ttl);
            }
        }
        let (narrower, wider) = (narrower.load().set, model.load().set);
        for ask in asks {
            gives_no_more(&narrower, &wider, &ask.of(&model))?;
        }
    }

    #[test]
    fn order_of_files_never_matters(model in model(), asks in asks(), seed in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
        let loaded = model.load();
        let mut documents = model.documents();
        let turn = seed.index(documents.len());
        documents.rotate_left(turn);
        documents.reverse();
        let (one, other) = documents.split_at(cut.index(documents.len()));
        let files = [("b.yaml", one), ("a.yaml", other)].map(|(name, documents)| File {
            name: name.to_owned(),
            text: documents.join("---\n"),
        });
        let again = load(&files, &Reserved::default());
        prop_assert_eq!(again.set.generation(), loaded.set.generation());
        for question in asks.iter().map(|ask| ask.of(&model)) {
            prop_assert_eq!(again.set.decide(&question), loaded.set.decide(&question));
        }
        let messages = |loaded: &Loaded| loaded.problems.iter().map(|p| p.message.clone()).collect::<BTreeSet<_>>();
        prop_assert_eq!(messages(&again), messages(&loaded));
    }

    /// Anything more that is invalid: broken text, an unknown field, a second object of a name.
    #[test]
    fn an_invalid_object_never_widens(model in model(), more in model(), asks in asks(), how in 0u8..3, at in any::<prop::sample::Index>()) {
        let before = model.load();
        let mut documents = model.documents();
        let broken = match how {
            0 => at.get(&more.documents()).replace("spec:", "spec: ["),
            1 => at.get(&more.documents()).replace("spec:", "surprise: true\nspec:"),
            _ => {
                // A second object of a name that is there.
                let taken: BTreeSet<_> = documents.iter().filter_map(|d| d.lines().nth(2).map(str::to_owned)).collect();
                let second = more.documents().into_iter().filter(|d| d.lines().nth(2).is_some_and(|l| taken.contains(l)));
                match second.collect::<Vec<_>>().as_slice() {
                    [] => String::new(),
                    some => at.get(some).clone(),
                }
            }
        };
        documents.push(broken);
        let after = of_documents(&documents);
        for ask in asks {
            gives_no_more(&after.set, &before.set, &ask.of(&model))?;
        }
    }

    /// One that is there, broken where it stands, Owners above all; where it does not read at all, by a source that read
    /// it before.
    #[test]
    fn an_object_that_breaks_never_widens(
        model in model(), asks in asks(), how in any::<(u8, usize, usize)>(), of_owners in prop::bool::weighted(0.7), at in any::<prop::sample::Index>()
    ) {
        let documents = model.documents();
        let some = if of_owners && !model.owners.is_empty() { model.owners.len() } else { documents.len() };
        let which = at.index(some);
        let Some(broken) = broken(&documents[which], how) else { return Ok(()) };
        let folder = tempfile::tempdir().unwrap();
        let write = |n: usize, text: &str| std::fs::write(folder.path().join(format!("{n}.yaml")), text).unwrap();
        documents.iter().enumerate().for_each(|(n, text)| write(n, text));
        let reserved = Reserved::default();
        let before = load_folder(folder.path(), &reserved).unwrap();
        write(which, &broken);
        let after = load_folder_after(folder.path(), &reserved, Some(&before.set)).unwrap();
        let errors = |loaded: &Loaded| loaded.problems.iter().filter(|p| p.severity == Severity::Error && !p.message.contains("nobody owns")).count();
        prop_assert_eq!(errors(&before), 0);
        // What is still valid is another policy, not a broken one.
        if errors(&after) > 0 {
            let mut sets = vec![after.set.clone()];
            // Where its claims still read, nobody needs to have read it before.
            let same = |line: &str| broken.lines().any(|other| other == line);
            let claims_read = serde_saphyr::from_str::<serde_json::Value>(&broken).is_ok()
                && documents[which].lines().filter(|line| line.starts_with("spec:") || line.contains("namespaces: {")).all(same);
            sets.extend(claims_read.then(|| load_folder(folder.path(), &reserved).unwrap().set));
            for (set, ask) in sets.iter().flat_map(|set| asks.iter().map(move |ask| (set, ask))) {
                gives_no_more(set, &before.set, &ask.of(&model)).map_err(|error| TestCaseError::fail(format!("{error}\n{broken}")))?;
            }
        }
        // A removal always applies.
        std::fs::remove_file(folder.path().join(format!("{which}.yaml"))).unwrap();
        let gone = load_folder_after(folder.path(), &reserved, Some(&after.set)).unwrap();
        let never = load_folder(folder.path(), &reserved).unwrap();
        prop_assert_eq!(gone.set.generation(), never.set.generation());
    }

    #[test]
    fn life_is_never_above_any_bound(model in model(), asks in asks()) {
        let set = model.load().set;
        for question in asks.iter().map(|ask| ask.of(&model)) {
            let Ok(decision) = set.decide(&question) else { continue };
            let grant = model.grants.iter().find(|g| format!("g{}", g.name) == decision.grant.name.as_str()).unwrap();
            let target = model.targets.iter().find(|t| t.name == decision.target.as_str()).unwrap();
            let ns = question.namespace.as_str();
            let owners: Vec<_> = decision.owners.iter().map(|owner| owner.as_str().to_owned()).collect();
            let has = |owner: &&str| owners.iter().any(|o| o == owner);
            let matching = target.ceiling.iter().filter(|e| match &e.namespaces {
                Some(namespaces) => namespaces.contains(&ns),
                None => e.owners.iter().any(has),
            });
            let mut bounds: Vec<_> = matching.filter_map(|entry| entry.max_ttl).collect();
            bounds.extend([grant.max_ttl, target.max_ttl, 24 * 3600]);
            bounds.extend(question.ttl.map(|ttl| ttl.as_secs()));
            if decision.owners.namespace.as_str() == "unowned" {
                bounds.extend(question.unowned.map(|grace| grace.until.as_secs() - NOW));
            }
            bounds.extend(question.key_ends_in.map(|ttl| ttl.as_secs()));
            prop_assert!(bounds.iter().all(|bound| decision.ttl.as_secs() <= *bound), "{bounds:?}");
            prop_assert!(decision.ttl.as_secs() >= 30);
            prop_assert!(target.audiences.contains(&decision.audience.as_str()));
            prop_assert!(decision.scope.iter().all(|scope| grant.scope.contains(&scope.as_str())));
            prop_assert!(!grant.audit);
        }
    }

    /// A workload is narrowed by what whoever makes the pod can write: that gives it nothing.
    #[test]
    fn to_be_narrowed_never_gives_more(model in model(), asks in asks()) {
        let mut plain = model.clone();
        plain.owners.iter_mut().for_each(|owner| owner.delegates.clear());
        let (narrowing, plain) = (model.load().set, plain.load().set);
        for question in asks.iter().map(|ask| ask.of(&model)) {
            let Ok(mut decision) = narrowing.decide(&question) else { continue };
            let of_plain = plain.decide(&exactly(&question, &decision)).unwrap();
            prop_assert!(no_more_live(decision.live, of_plain.live));
            decision.live = of_plain.live;
            if decision.owners.narrowed.take().is_some() {
                prop_assert!(decision.owners.narrowed_by.take().is_some());
            }
            prop_assert_eq!(decision, of_plain);
        }
    }

    #[test]
    fn grants_of_mode_audit_change_no_answer(model in model(), asks in asks()) {
        let mut without = model.clone();
        without.grants.retain(|grant| !grant.audit);
        let (with, without) = (model.load().set, without.load().set);
        for question in asks.iter().map(|ask| ask.of(&model)) {
            let reason = |set: &PolicySet| set.decide(&question).map_err(|denial| denial.reason());
            prop_assert_eq!(reason(&with), reason(&without));
        }
    }

    #[test]
    fn explaining_and_deciding_agree(model in model(), asks in asks()) {
        let set = model.load().set;
        for question in asks.iter().map(|ask| ask.of(&model)) {
            let explanation = set.explain(&question);
            prop_assert_eq!(&explanation.answer, &set.decide(&question));
            let denied = explanation.answer.is_err();
            let refused = explanation.checks.iter().position(|checked| checked.verdict == Verdict::Refused);
            prop_assert_eq!(refused, denied.then(|| explanation.checks.len() - 1));
            prop_assert_eq!(explanation.change.is_some(), denied);
            let grounds = explanation.grounds();
            prop_assert!(grounds.checks.len() <= 24);
            prop_assert!(grounds.checks.iter().all(|check| check.name.len().max(check.outcome.len()) <= 160));
            if let Ok(decision) = &explanation.answer {
                let kinds: Vec<_> = grounds.objects.iter().map(|object| object.kind.as_str()).collect();
                let owners = usize::from(decision.owners.namespace.as_str() != "unowned")
                    + usize::from(decision.owners.narrowed.is_some());
                prop_assert_eq!(kinds.len(), owners + 2, "{:?}", kinds);
                prop_assert!(grounds.objects.iter().all(|object| object.generation.len() == 16));
            }
        }
    }
}

/// The generated policies say yes often enough for the properties to mean something.
#[test]
fn generated_policies_grant_something() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let granted = (0..50).map(|_| {
        let (model, asks) = (model(), asks()).new_tree(&mut runner).unwrap().current();
        let loaded = model.load();
        let broken = loaded
            .problems
            .iter()
            .filter(|p| p.severity == Severity::Error && !p.message.contains("nobody owns"));
        assert_eq!(broken.count(), 0, "{:?}", loaded.problems);
        asks.iter().filter(|ask| loaded.set.decide(&ask.of(&model)).is_ok()).count()
    });
    let granted: usize = granted.sum();
    assert!(granted > 50, "{granted} of 1000");
}
