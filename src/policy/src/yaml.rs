//! YAML documents with locations. A file is split at its document markers, so that a document that is not even YAML
//! does not take the others with it.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Location, Options, Spanned};

use crate::spec::Step;

/// One document of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Document<'a> {
    text: &'a str,
    /// Lines of the file before it.
    lines_before: u64,
}

/// A place in a file, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// A document is not what it should be.
#[derive(Debug)]
pub(crate) struct BadDocument {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// A file's documents that hold more than comments. A line that begins with `---` ends a document wherever it stands
/// (YAML 1.2.2, section 9.1.2: such a line can be inside no scalar).
pub(crate) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut at = 0;
    for (number, line) in (0u64..).zip(text.split_inclusive('\n')) {
        if is_marker(line) {
            let part = text.get(start..at).unwrap_or_default();
            documents.push(Document { text: part, lines_before: start_line });
            // The marker's own line may hold content (`--- {a: b}`): it stays with what follows.
            (start, start_line) = (at, number);
        }
        at += line.len();
    }
    documents.push(Document { text: text.get(start..).unwrap_or_default(), lines_before: start_line });
    documents.retain(|document| !document.is_blank());
    documents
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

impl Document<'_> {
    fn is_blank(&self) -> bool {
        self.text.lines().all(|line| {
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            line.is_empty() || line.starts_with('#')
        })
    }

    /// The document as a `T`.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, BadDocument> {
        self.parse_with(options(DuplicateKeyPolicy::Error))
    }

    /// The document as a `T`, of which a part says which object it is: duplicate keys elsewhere do not hide that.
    pub(crate) fn parse_head<T: DeserializeOwned>(&self) -> Result<T, BadDocument> {
        self.parse_with(options(DuplicateKeyPolicy::FirstWins))
    }

    /// The document as it stands, each of several equal keys too; none where it is not even YAML.
    pub(crate) fn outline(&self) -> Option<Node> {
        let lenient = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            merge_keys: MergeKeyPolicy::Merge,
            with_snippet: false,
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPLAYED },
        };
        serde_saphyr::from_str_with_options(self.text, lenient).ok()
    }

    /// The text of a value of its outline, a number's or boolean's as it is written; none of what holds others, or is null.
    pub(crate) fn text<'v>(&'v self, value: &'v Value) -> Option<&'v str> {
        match &value.value {
            Node::Text(text) => Some(text),
            Node::Plain => {
                let span = value.defined.span();
                let start = usize::try_from(span.byte_offset()?).ok()?;
                let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
                self.text.get(start..end).map(str::trim_ascii)
            }
            Node::Map(_) | Node::List(_) | Node::Null => None,
        }
    }

    fn parse_with<T: DeserializeOwned>(&self, options: Options) -> Result<T, BadDocument> {
        serde_saphyr::from_str_with_options(self.text, options).map_err(|error| {
            let place = error.location().map_or(self.start(), |location| self.place(location));
            BadDocument { place, message: message_of(&error) }
        })
    }

    /// Where it begins.
    pub(crate) fn start(&self) -> Place {
        Place { line: self.lines_before + 1, column: 1 }
    }

    /// Where the value at the end of this path is, or the nearest there is on the way to it.
    pub(crate) fn find(&self, path: &[Step]) -> Place {
        let Ok(root) =
            serde_saphyr::from_str_with_options::<Node>(self.text, options(DuplicateKeyPolicy::Error))
        else {
            return self.start();
        };
        let (mut node, mut found) = (&root, None);
        for step in path {
            let next = match (node, step) {
                (Node::Map(entries), Step::Key(key)) => {
                    entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
                }
                (Node::List(items), Step::Index(index)) => items.get(*index),
                _ => None,
            };
            let Some(next) = next else { break };
            found = Some(next.referenced);
            node = &next.value;
        }
        found.map_or(self.start(), |location| self.place(location))
    }

    fn place(&self, location: Location) -> Place {
        Place { line: self.lines_before + location.line().max(1), column: location.column().max(1) }
    }
}

/// Events that aliases may stand for in one document.
const REPLAYED: usize = 10_000;

/// Strict: no merge keys, `true` and `false` only, no aliases that multiply.
fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        duplicate_keys: duplicate_keys,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        no_schema: true,
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPLAYED },
    }
}

/// The error without its location, which is told apart from it.
fn message_of(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.split('\n').next().unwrap_or_default();
    let text = text.rsplit_once(" at line ").map_or(text, |(message, _)| message);
    text.split(", set DuplicateKeyPolicy").next().unwrap_or(text).to_owned()
}

/// Any YAML, with where each value is.
pub(crate) enum Node {
    Map(Vec<(String, Value)>),
    List(Vec<Value>),
    Text(String),
    /// A number or boolean: its text is where it stands.
    Plain,
    Null,
}

/// A value, and where it is.
pub(crate) type Value = Spanned<Node>;

impl Node {
    /// The values of a key.
    pub(crate) fn all<'n>(&'n self, key: &'n str) -> impl Iterator<Item = &'n Value> {
        let entries = match self {
            Self::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().filter(move |(name, _)| name == key).map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;
        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Plain)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Plain)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Plain)
            }
            fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
                Ok(Node::Plain)
            }
            fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
                Ok(Node::Plain)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Plain)
            }
            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}
