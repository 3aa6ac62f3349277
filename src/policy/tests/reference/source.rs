//! The specs as their source says them: structs and enums with their doc comments, as rustfmt lays them out.

use std::collections::BTreeMap;

use serde_json::{Value, json};

const FILES: [&str; 4] = [
    include_str!("../../src/spec.rs"),
    include_str!("../../src/parts.rs"),
    include_str!("../../src/kind.rs"),
    include_str!("../../src/table.rs"),
];

/// Types that are text, or made of it: type, what a table calls it, pattern, what it is.
const LEAVES: [(&str, &str, &str, &str); 17] = [
    ("String", "text", "", ""),
    ("bool", "boolean", "", ""),
    ("u32", "number", "", "a whole number from 1"),
    ("Ttl", "time", "^[0-9]+[smh]$", "a whole number and one unit, `s`, `m` or `h`: `300s`, `15m`, `1h`"),
    ("Namespace", "namespace", DNS_LABEL, "1 to 63 of a-z, 0-9 and '-' (RFC 1123 label)"),
    ("ClusterName", "cluster", DNS_LABEL, "as a namespace"),
    ("OwnerName", "owner", DNS_LABEL, "as a namespace; the name of an Owner, or `unowned` in a ceiling"),
    ("TargetName", "target", DNS_LABEL, "as a namespace; the name of a Target"),
    (
        "GrantName",
        "grant",
        SUBDOMAIN,
        "1 to 253 of a-z, 0-9, '-' and '.' (RFC 1123 subdomain); the name of a Grant",
    ),
    ("ServiceAccountName", "service account", SUBDOMAIN, "as a grant"),
    (
        "Scope",
        "scope",
        r"^[!#-\[\]-~]{1,128}$",
        "1 to 128 printable ASCII characters without space, `\"` and `\\` (RFC 6749, section 3.3)",
    ),
    ("Audience", "audience", "^[!-~]{1,255}$", "1 to 255 printable ASCII characters without space"),
    (
        "TrustDomain",
        "trust domain",
        "^[a-z0-9._-]{1,255}$",
        "1 to 255 of a-z, 0-9, '.', '-' and '_', without `spiffe://` (SPIFFE ID, section 2.1)",
    ),
    (
        "SigningAlgorithm",
        "algorithm",
        "^(ES256|EdDSA|RS256)$",
        "`ES256`, `EdDSA` or `RS256` (RFC 7518, RFC 8037)",
    ),
    (
        "Labels",
        "labels",
        "",
        "a map of 1 to 16 Kubernetes labels: all of them must be there, with exactly these values",
    ),
    (
        "Claims",
        "claims",
        "",
        "a map of names, 1 to 128 of letters, digits, `-._:/#`, to a string or a list of strings, each of at most 512 bytes",
    ),
    ("AllowedClaims", "allowed claims", "", "a map of at most 32 names as of claims to lists of strings"),
];
const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// What the leaf types are, in words.
pub(super) fn leaves() -> impl Iterator<Item = (&'static str, &'static str)> {
    LEAVES.iter().filter(|leaf| !leaf.3.is_empty()).map(|(_, words, _, says)| (*words, *says))
}

/// A struct's field, or an enum's variant.
#[derive(Debug, Clone, Default)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) doc: String,
    /// The type, without `Option`.
    pub(super) kind: String,
    pub(super) required: bool,
}

impl Field {
    pub(super) fn is_list(&self) -> bool {
        self.kind.starts_with("Vec<")
    }

    /// The type, or that of the list's entries.
    pub(super) fn inner(&self) -> &str {
        self.kind.strip_prefix("Vec<").and_then(|kind| kind.strip_suffix('>')).unwrap_or(&self.kind)
    }
}

/// A struct or an enum.
#[derive(Debug, Default)]
pub(super) struct Item {
    pub(super) doc: String,
    pub(super) fields: Vec<Field>,
    is_enum: bool,
}

/// Every public type that is deserialized.
pub(super) struct Source(BTreeMap<String, Item>);

impl Source {
    pub(super) fn read() -> Self {
        let mut items = BTreeMap::new();
        for file in FILES {
            let (mut doc, mut serde) = (String::new(), false);
            let mut lines = file.lines();
            while let Some(line) = lines.next() {
                let opened = ["pub struct ", "pub enum "].iter().find_map(|open| {
                    Some((line.strip_prefix(open)?.strip_suffix(" {")?, *open == "pub enum "))
                });
                if let Some(text) = line.strip_prefix("///") {
                    add(&mut doc, text);
                } else if line.starts_with("#[") {
                    serde |= line.contains("Deserialize");
                } else {
                    if let Some((name, is_enum)) = opened.filter(|_| serde) {
                        let fields = fields(&mut lines);
                        let doc = plain(&doc);
                        items.insert(name.to_owned(), Item { doc, fields, is_enum });
                    }
                    (doc, serde) = (String::new(), false);
                }
            }
        }
        Self(items)
    }

    #[expect(clippy::panic, reason = "a test")]
    pub(super) fn item(&self, name: &str) -> &Item {
        self.0.get(name).unwrap_or_else(|| panic!("{name} is not in the source: see FILES and LEAVES"))
    }

    pub(super) fn is_struct(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|item| !item.is_enum)
    }

    /// A type in words.
    pub(super) fn words(&self, kind: &str) -> String {
        if let Some(inner) = kind.strip_prefix("Vec<").and_then(|kind| kind.strip_suffix('>')) {
            return format!("list of {}", self.words(inner));
        }
        match LEAVES.iter().find(|leaf| leaf.0 == kind) {
            Some((_, words, ..)) => (*words).to_owned(),
            None if self.item(kind).is_enum => {
                let variants = self.item(kind).fields.iter().map(|variant| format!("`{}`", variant.name));
                variants.collect::<Vec<_>>().join(" or ")
            }
            None => "object".to_owned(),
        }
    }

    /// The enums among the fields of a type, and of those under it.
    pub(super) fn enums_under(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        for field in &self.item(name).fields {
            match self.0.get(field.inner()) {
                Some(item) if item.is_enum => found.push(field.inner().to_owned()),
                Some(_) => found.extend(self.enums_under(field.inner())),
                None => {}
            }
        }
        found.dedup();
        found
    }

    /// A type as JSON Schema.
    pub(super) fn schema(&self, kind: &str) -> Value {
        if let Some(inner) = kind.strip_prefix("Vec<").and_then(|kind| kind.strip_suffix('>')) {
            return json!({"type": "array", "items": self.schema(inner)});
        }
        let text = json!({"type": "string"});
        match kind {
            "bool" => return json!({"type": "boolean"}),
            "u32" => return json!({"type": "integer", "minimum": 1}),
            "Labels" => return json!({"type": "object", "additionalProperties": text}),
            "Claims" => {
                let value = json!({"oneOf": [text, {"type": "array", "items": text}]});
                return json!({"type": "object", "additionalProperties": value});
            }
            "AllowedClaims" => {
                let values = json!({"type": "array", "items": text});
                return json!({"type": "object", "additionalProperties": values});
            }
            _ => {}
        }
        if let Some(item) = self.0.get(kind) {
            return self.of_item(item);
        }
        let pattern = LEAVES.iter().find(|leaf| leaf.0 == kind).map_or("", |leaf| leaf.2);
        assert!(kind == "String" || !pattern.is_empty(), "{kind} is not known here: see LEAVES");
        if pattern.is_empty() { text } else { json!({"type": "string", "pattern": pattern}) }
    }

    fn of_item(&self, item: &Item) -> Value {
        if item.is_enum {
            let names: Vec<_> = item.fields.iter().map(|variant| variant.name.as_str()).collect();
            return json!({"type": "string", "enum": names});
        }
        let properties = item.fields.iter().map(|field| {
            let mut schema = self.schema(&field.kind);
            schema["description"] = Value::String(field.doc.clone());
            (field.name.clone(), schema)
        });
        let required: Vec<_> = item.fields.iter().filter(|f| f.required).map(|f| f.name.as_str()).collect();
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": required,
            "properties": properties.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// The fields or variants up to the closing brace.
fn fields<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<Field> {
    let mut fields = Vec::new();
    let (mut doc, mut default) = (String::new(), false);
    for line in lines.take_while(|line| *line != "}") {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            add(&mut doc, text);
        } else if line.starts_with("#[") {
            default |= line.contains("serde(default");
        } else if let Some(line) = line.strip_suffix(',') {
            let (name, kind) = match line.strip_prefix("pub ").and_then(|line| line.split_once(": ")) {
                Some((name, kind)) => (camel_case(name), kind),
                None => (line.to_owned(), ""),
            };
            let kind = kind.strip_prefix("Option<").and_then(|kind| kind.strip_suffix('>')).unwrap_or(kind);
            let kind = kind.to_owned();
            fields.push(Field { name, doc: plain(&doc), kind, required: !default });
            (doc, default) = (String::new(), false);
        }
    }
    fields
}

fn add(doc: &mut String, text: &str) {
    if !doc.is_empty() {
        doc.push('\n');
    }
    doc.push_str(text.trim());
}

/// Without Rust's links: `[`x`]` is `x`.
fn plain(doc: &str) -> String {
    doc.replace("[`", "`").replace("`]", "`")
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        name.push_str(letters.as_str());
        name
    })
}
