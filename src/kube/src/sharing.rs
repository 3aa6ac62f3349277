//! Values that many objects have alike, held once: the pods of one controller differ in little.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use dayfly_core::provenance::{Image, Labels, ObjectRef};

/// What is shared among the objects of one kind.
#[derive(Default)]
pub(crate) struct Sharing {
    pub(crate) labels: Shared<Labels>,
    pub(crate) references: Shared<ObjectRef>,
    pub(crate) images: Shared<[Image]>,
}

/// Values held once, for as long as anything has them.
pub(crate) struct Shared<T: ?Sized> {
    held: HashSet<Arc<T>>,
    /// When it has so many, those that nothing has any more are dropped.
    sweep_at: usize,
}

const SWEEP_AT_LEAST: usize = 64;

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { held: HashSet::new(), sweep_at: SWEEP_AT_LEAST }
    }
}

impl<T: Hash + Eq + ?Sized> Shared<T> {
    /// Puts the value that is held in place of an equal one.
    pub(crate) fn share(&mut self, value: &mut Arc<T>) {
        if let Some(held) = self.held.get(value.as_ref()) {
            *value = Arc::clone(held);
            return;
        }
        if self.held.len() >= self.sweep_at {
            self.held.retain(|held| Arc::strong_count(held) > 1);
            self.sweep_at = (self.held.len() * 2).max(SWEEP_AT_LEAST);
        }
        self.held.insert(Arc::clone(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_none_is_kept_for_nobody() {
        let mut shared = Shared::<str>::default();
        let (mut first, mut second) = (Arc::<str>::from("a"), Arc::<str>::from("a"));
        shared.share(&mut first);
        shared.share(&mut second);
        assert!(Arc::ptr_eq(&first, &second));
        for n in 0..10_000 {
            shared.share(&mut Arc::<str>::from(n.to_string()));
        }
        assert!(shared.held.len() <= SWEEP_AT_LEAST, "{}", shared.held.len());
        assert!(shared.held.contains("a"), "somebody has it");
    }
}
