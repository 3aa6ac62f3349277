//! Files of checkpoints: one, or several one after another, as a sink of the broker writes them.

use std::path::Path;

use anyhow::Context as _;
use dayfly_core::note::SignedNote;

/// The most that such a file may have: a year of one a minute.
const BYTES: u64 = 256 * 1024 * 1024;
const DASH: char = '\u{2014}';

/// Every note in a file, in its order.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<SignedNote>> {
    let text = super::read(path, BYTES)?;
    let notes = all(&text).with_context(|| format!("{} is no file of checkpoints", path.display()))?;
    anyhow::ensure!(!notes.is_empty(), "{} holds no checkpoint", path.display());
    Ok(notes)
}

/// Every note in a text. What a crash cut off before a note is passed over: the log's name begins each.
fn all(text: &str) -> anyhow::Result<Vec<SignedNote>> {
    let (mut notes, mut block): (Vec<SignedNote>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if block.is_empty() && line.is_empty() {
            continue;
        }
        block.push(line);
        let signature = line.starts_with(DASH);
        if signature && !lines.peek().is_some_and(|next| next.starts_with(DASH)) {
            let name = line.split(' ').nth(1).unwrap_or_default();
            let first = block.iter().rposition(|line| *line == name).unwrap_or_default();
            let note = block.get(first..).unwrap_or_default().join("\n") + "\n";
            notes.push(note.parse().with_context(|| format!("checkpoint {}", notes.len() + 1))?);
            block.clear();
        }
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_follow_each_other_are_read_and_what_was_cut_off_is_not() {
        let note = |size: u64| format!("a.example/log\n{size}\nAA==\n\n\u{2014} a.example/log AAAAAAA=\n");
        let texts = |text: &str| -> Vec<_> { all(text).unwrap().iter().map(ToString::to_string).collect() };
        assert_eq!(texts(&note(1)), [note(1)]);
        assert_eq!(texts(&format!("{}\n{}\n", note(1), note(2))), [note(1), note(2)]);
        assert_eq!(texts(&format!("{}\na.example/log\n7\n\n{}\n", note(1), note(2))), [note(1), note(2)]);
        assert!(texts("").is_empty());
        let two = "a.example/log\n1\nAA==\n\n\u{2014} a.example/log AAAAAAA=\n\u{2014} b AAAAAAA=\n";
        assert_eq!(all(two).unwrap()[0].signatures.len(), 2);
        assert!(all("\u{2014} a\n").is_err());
    }
}
