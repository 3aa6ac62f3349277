//! What documents that are not valid claim as Owners: it stays contested, so that a broken object never hands a namespace
//! to a rival, nor to the grace for the unowned.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dayfly_core::ids::OwnerName;
use dayfly_core::provenance::Labels;

use crate::object::{Body, Kind, Object};
use crate::problem::Problem;
use crate::spec::NamespacesSpec;
use crate::yaml::{Document, Node, Value};

/// What each file's Owners claim, as they were when they were last valid.
pub(crate) type ClaimedByFile = BTreeMap<String, BTreeMap<OwnerName, NamespacesSpec>>;

/// The namespaces that a document claims, as far as they can be made out: what cannot be is passed over, one by one. None
/// where it is not even YAML. Whatever kind it says it is: no other kind than Owner has `spec.namespaces`.
pub(crate) fn claimed(document: Document<'_>) -> Option<NamespacesSpec> {
    let root = document.outline()?;
    let mut claimed = NamespacesSpec::default();
    for namespaces in root.all("spec").flat_map(|spec| spec.value.all("namespaces")) {
        let (names, labels): (Vec<_>, Vec<_>) = match &namespaces.value {
            Node::Map(_) => {
                (namespaces.value.all("names").collect(), namespaces.value.all("labels").collect())
            }
            _ => (vec![namespaces], Vec::new()),
        };
        let texts = names.into_iter().flat_map(items).filter_map(|name| document.text(name));
        claimed.names.extend(texts.filter_map(|name| name.parse().ok()));
        let sets = labels.into_iter().flat_map(items).map(|set| labels_of(document, set));
        claimed.labels.extend(sets.filter(|set| !set.is_empty()));
    }
    Some(claimed)
}

/// The items of a list; what is none is the only one.
fn items(value: &Value) -> Vec<&Value> {
    match &value.value {
        Node::List(items) => items.iter().collect(),
        _ => vec![value],
    }
}

/// A set of labels. Without those that cannot be read it matches more, not less.
fn labels_of(document: Document<'_>, set: &Value) -> Labels {
    let Node::Map(entries) = &set.value else { return Labels::new() };
    let label = |(key, value): &(String, Value)| Some((key.clone(), document.text(value)?.to_owned()));
    entries.iter().filter_map(label).collect()
}

/// What the valid Owners of each file claim now.
pub(crate) fn of_valid(objects: &[Object<'_>]) -> ClaimedByFile {
    let mut claimed = ClaimedByFile::new();
    for object in objects {
        if let Some(Body::Owner(name, spec)) = &object.body {
            let of_file = claimed.entry(object.file.to_owned()).or_default();
            of_file.insert(name.clone(), spec.namespaces.clone());
        }
    }
    claimed
}

/// What of `before` still counts: the claims of Owners that are valid nowhere now, while in their file there is something
/// that is not valid and may be them. Taking them out of it, or the file away, frees what they claimed. Says so in the
/// problems of what does not read at all: `unreadable` files, and documents.
pub(crate) fn still_claimed(
    before: &ClaimedByFile,
    objects: &mut [Object<'_>],
    unreadable: &mut [Problem],
) -> ClaimedByFile {
    let valid: BTreeSet<OwnerName> = of_valid(objects).into_values().flat_map(BTreeMap::into_keys).collect();
    // By file, the names of its invalid Owners; none where one does not say its name.
    let mut broken: HashMap<&str, Option<BTreeSet<&str>>> = HashMap::new();
    for object in objects.iter().filter(|object| object.body.is_none()) {
        match &object.key {
            None => drop(broken.insert(object.file, None)),
            Some(key) if key.kind == Kind::Owner => {
                if let Some(names) = broken.entry(object.file).or_insert_with(|| Some(BTreeSet::new())) {
                    names.insert(&key.name);
                }
            }
            Some(_) => {}
        }
    }
    broken.extend(unreadable.iter().map(|problem| (problem.file.as_str(), None)));
    let mut still = ClaimedByFile::new();
    for (file, owners) in before {
        let Some(names) = broken.get(file.as_str()) else { continue };
        let may_be = |name: &OwnerName| names.as_ref().is_none_or(|names| names.contains(name.as_str()));
        let owners = owners.iter().filter(|(name, _)| !valid.contains(*name) && may_be(name));
        let owners: BTreeMap<_, _> = owners.map(|(name, spec)| (name.clone(), spec.clone())).collect();
        if !owners.is_empty() {
            still.insert(file.clone(), owners);
        }
    }
    for object in objects.iter_mut().filter(|object| object.body.is_none() && object.claimed.is_none()) {
        object.problems.iter_mut().for_each(|problem| say(problem, &still));
    }
    for problem in unreadable {
        say(problem, &still);
    }
    still
}

fn say(problem: &mut Problem, still: &ClaimedByFile) {
    let more = match still.get(&problem.file) {
        Some(owners) => {
            let owners: Vec<_> = owners.keys().map(OwnerName::as_str).collect();
            format!("; until it reads, what Owner {} claimed stays nobody's", owners.join(", "))
        }
        None => "; what it claims, if it is an Owner, is not known".to_owned(),
    };
    problem.message.push_str(&more);
}
