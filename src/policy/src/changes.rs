//! Which objects differ between two policies: what is recorded when a policy changes.

use std::collections::BTreeMap;

use crate::set::PolicySet;

/// What is told of one change, in bytes; how many more there are is told behind it.
const BYTES: usize = 8 * 1024;

/// Each object that differs, in words: `added`, `changed` or `removed`, which, and the first 16 digits of the digests of its
/// content. Owners, Targets, Grants, each by name.
pub fn changed_objects(before: Option<&PolicySet>, after: &PolicySet) -> Vec<String> {
    let was = before.map(objects).unwrap_or_default();
    let is = objects(after);
    let names: std::collections::BTreeSet<_> = was.keys().chain(is.keys()).collect();
    let lines = names.into_iter().filter_map(|at| {
        let (_, kind, name) = at;
        match (was.get(at), is.get(at)) {
            (None, Some(is)) => Some(format!("added {kind} {name} {is}")),
            (Some(was), None) => Some(format!("removed {kind} {name} {was}")),
            (Some(was), Some(is)) if was != is => Some(format!("changed {kind} {name} {was} to {is}")),
            _ => None,
        }
    });
    let (mut told, mut bytes, mut more) = (Vec::new(), 0, 0);
    for line in lines {
        bytes += line.len();
        if bytes > BYTES {
            more += 1;
        } else {
            told.push(line);
        }
    }
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told
}

/// Generations by kind and name.
fn objects(set: &PolicySet) -> BTreeMap<(u8, &'static str, String), &str> {
    let owners = set.owners().map(|it| ((0, "Owner", it.name.to_string()), it.generation.as_str()));
    let targets = set.targets().map(|it| ((1, "Target", it.name.to_string()), it.generation.as_str()));
    let grants = set.grants().map(|it| ((2, "Grant", it.name.to_string()), it.generation.as_str()));
    owners.chain(targets).chain(grants).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{File, Reserved, load};

    fn policy(text: &str) -> PolicySet {
        load(&[File { name: "p.yaml".to_owned(), text: text.to_owned() }], &Reserved::default()).set
    }

    fn owner(name: &str, display: &str) -> String {
        format!(
            "apiVersion: dayfly.dev/v1alpha1\nkind: Owner\nmetadata: {{name: {name}}}\nspec: {{displayName: {display}, \
             contacts: [a@example.com], namespaces: {{names: [{name}]}}}}\n---\n"
        )
    }

    #[test]
    fn what_differs_is_named_with_its_digests() {
        let before = policy(&[owner("a", "A"), owner("b", "B"), owner("c", "C")].concat());
        let after = policy(&[owner("b", "B"), owner("c", "Other"), owner("d", "D")].concat());
        let told = changed_objects(Some(&before), &after);
        let words: Vec<_> = told.iter().map(|it| it.rsplit_once(' ').unwrap().0).collect();
        let was = &before.owner(&"c".parse().unwrap()).unwrap().generation;
        assert_eq!(words, ["removed Owner a", &format!("changed Owner c {was} to"), "added Owner d"]);
        assert_eq!(changed_objects(Some(&after), &after), Vec::<String>::new());
        assert_eq!(changed_objects(None, &after).len(), 3);
    }

    #[test]
    fn what_is_told_is_bounded() {
        let many: String = (0..1000).map(|n| owner(&format!("owner-{n}"), "X")).collect();
        let told = changed_objects(None, &policy(&many));
        assert!(told.iter().map(String::len).sum::<usize>() < 9000);
        let more: usize = told.last().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(told.len() - 1 + more, 1000);
    }
}
