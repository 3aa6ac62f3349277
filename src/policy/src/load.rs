//! From texts to a policy: every object by itself, then what they say about each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dayfly_core::ids::{Audience, TrustDomain};
use dayfly_core::limits;
use dayfly_core::provenance::Labels;

use crate::claimed::{ClaimedByFile, of_valid, still_claimed};
use crate::object::{Body, Object, ObjectKey};
use crate::owners::{Contested, Ownership};
use crate::problem::{Problem, Severity};
use crate::set::{Grant, Owner, PolicySet, Target};
use crate::spec::{Fault, Step};
use crate::table::Table;
use crate::yaml;

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name, as problems show it.
    pub name: String,
    /// Its text: YAML documents.
    pub text: String,
}

/// What the broker's configuration keeps from targets. Audiences: Dayfly's own, and those of the clusters' API servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved {
    /// The audiences.
    pub audiences: BTreeSet<Audience>,
    /// The only trust domains that targets may have; none where that is not known, as offline.
    pub trust_domains: Option<BTreeSet<TrustDomain>>,
}

/// A policy as it was read, and everything that is wrong with what it was read from.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// What is valid.
    pub set: PolicySet,
    /// The valid `PolicyTest` objects, by name: they decide nothing.
    pub tests: Vec<Table>,
    /// What is not, by file and line.
    pub problems: Vec<Problem>,
}

/// Reads a policy from texts. The order of files, and of documents in them, never matters.
pub fn load(files: &[File], reserved: &Reserved) -> Loaded {
    load_after(files, Vec::new(), reserved, None)
}

/// Reads a policy. `unreadable` files hold no text; `before` is what the same source said last.
pub(crate) fn load_after(
    files: &[File],
    unreadable: Vec<Problem>,
    reserved: &Reserved,
    before: Option<&PolicySet>,
) -> Loaded {
    let mut problems = unreadable;
    let mut objects = Vec::new();
    for file in files {
        if u64::try_from(file.text.len()).unwrap_or(u64::MAX) > limits::POLICY_FILE_BYTES {
            problems.push(of_file(&file.name, "is larger than 1 MiB: split it"));
            continue;
        }
        let documents = yaml::documents(&file.text);
        objects.extend(documents.into_iter().map(|document| Object::read(&file.name, document, reserved)));
    }
    let mut contested = refuse_duplicates(&mut objects);
    let none = ClaimedByFile::new();
    let still = still_claimed(before.map_or(&none, |before| &before.claimed), &mut objects, &mut problems);
    contested.extend(still.values().flat_map(BTreeMap::values).cloned());
    let tests = take_tests(&mut objects);
    let mut set = assemble(&objects, &contested);
    set.claimed = of_valid(&objects);
    for (file, owners) in still {
        set.claimed.entry(file).or_default().extend(owners);
    }
    report_owners(&mut objects, &set);
    report_grants(&mut objects, &set);
    problems.extend(objects.into_iter().flat_map(|object| object.problems));
    problems.sort();
    Loaded { set, tests, problems }
}

/// A problem of a whole file.
pub(crate) fn of_file(name: &str, message: &str) -> Problem {
    Problem {
        file: name.to_owned(),
        line: 0,
        column: 0,
        object: None,
        message: message.to_owned(),
        severity: Severity::Error,
    }
}

/// Two objects of one name are both invalid: which of them was meant is not ours to guess. What they claim as Owners
/// stays contested, so that a second definition never hands a namespace to a rival; so does what an invalid one
/// claims, as far as it can be made out.
fn refuse_duplicates(objects: &mut [Object<'_>]) -> Contested {
    let mut contested = Contested::default();
    let mut places: HashMap<ObjectKey, Vec<(String, u64)>> = HashMap::new();
    for object in objects.iter() {
        if let Some(key) = &object.key {
            let place = (object.file.to_owned(), object.document.start().line);
            places.entry(key.clone()).or_default().push(place);
        }
    }
    for object in objects {
        contested.extend(object.claimed.clone());
        let here = (object.file.to_owned(), object.document.start().line);
        let Some(all) = object.key.as_ref().and_then(|key| places.get(key)) else { continue };
        if let Some((file, line)) = all.iter().filter(|place| **place != here).min() {
            if let Some(Body::Owner(_, spec)) = object.body.take() {
                contested.extend([spec.namespaces]);
            }
            let message = format!("is defined again at {file}:{line}: neither holds until one is removed");
            object.fault(&Fault { path: name_path(), message }, Severity::Error);
        }
    }
    contested
}

fn name_path() -> Vec<Step> {
    vec![Step::Key("metadata"), Step::Key("name")]
}

fn take_tests(objects: &mut [Object<'_>]) -> Vec<Table> {
    let tests = objects.iter_mut().filter(|object| matches!(object.body, Some(Body::Test(_))));
    let taken = tests.filter_map(|object| match object.body.take() {
        Some(Body::Test(table)) => Some(table),
        _ => None,
    });
    let mut tests: Vec<_> = taken.collect();
    tests.sort_by(|one, other| one.name.cmp(&other.name));
    tests
}

fn assemble(objects: &[Object<'_>], contested: &Contested) -> PolicySet {
    let (mut owners, mut targets, mut grants) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut digests = Vec::new();
    for object in objects {
        let generation = object.digest.to_string().chars().take(16).collect();
        match object.body.clone() {
            Some(Body::Owner(name, spec)) => {
                owners.insert(name.clone(), Arc::new(Owner { name, spec, generation }));
            }
            Some(Body::Target(name, spec)) => {
                targets.insert(name.clone(), Arc::new(Target { name, spec, generation }));
            }
            Some(Body::Grant(name, spec)) => {
                grants.insert(name.clone(), Arc::new(Grant { name, spec, generation }));
            }
            Some(Body::Test(_)) | None => continue,
        }
        digests.push(object.digest);
    }
    PolicySet::new(owners, targets, grants, contested, digests)
}

/// Two owners of equal rank name one namespace: an error on both, and nobody owns it.
fn report_owners(objects: &mut [Object<'_>], set: &PolicySet) {
    for object in objects {
        let Some(Body::Owner(name, spec)) = object.body.clone() else { continue };
        for (index, namespace) in spec.namespaces.names.iter().enumerate() {
            if set.owner_of(namespace, &Labels::new()) != Ownership::Ambiguous {
                continue;
            }
            let rivals = set
                .owners()
                .filter(|rival| rival.name != name && rival.spec.namespaces.names.contains(namespace));
            let rivals: Vec<_> = rivals.map(|rival| rival.name.as_str()).collect();
            let by =
                if rivals.is_empty() { "one that is defined twice, or invalid" } else { &rivals.join(", ") };
            let message =
                format!("{namespace} is named by another Owner too, {by}: nobody owns it until one remains");
            let path = ["spec", "namespaces", "names"].map(Step::Key).into_iter();
            let path = path.chain([Step::Index(index)]).collect();
            object.fault(&Fault { path, message }, Severity::Error);
        }
        for fault in set.beyond_owner(&name, &spec) {
            object.fault(&fault, Severity::Warning);
        }
    }
}

/// A Grant that cannot give all it says: it is kept, and decisions are cut.
fn report_grants(objects: &mut [Object<'_>], set: &PolicySet) {
    for object in objects {
        let Some(Body::Grant(name, spec)) = object.body.clone() else { continue };
        for fault in set.beyond(&Grant { name, spec, generation: String::new() }) {
            object.fault(&fault, Severity::Warning);
        }
    }
}
