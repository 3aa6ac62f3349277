//! How a caller wants to see objects: which ones, and how much of each.

use serde_json::{Value, json};

use crate::refusal::Refusal;

/// What a list or watch shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Only metadata (`Accept: application/json;as=PartialObjectMetadata`).
    pub(crate) metadata_only: bool,
    fields: Vec<FieldIs>,
}

#[derive(Debug, Clone)]
struct FieldIs {
    pointer: String,
    value: String,
    equal: bool,
}

impl View {
    /// From the `Accept` header and the selectors. Selecting by label is refused: nothing of ours does.
    pub(crate) fn new(accept: &str, fields: Option<&str>, labels: Option<&str>) -> Result<Self, Refusal> {
        if labels.is_some_and(|labels| !labels.is_empty()) {
            return Err(Refusal::bad_request("the stand-in does not select by label"));
        }
        let terms = fields.unwrap_or_default().split(',').filter(|term| !term.is_empty());
        let fields = terms.map(FieldIs::parse).collect::<Result<_, _>>()?;
        Ok(Self { metadata_only: accept.contains("as=PartialObjectMetadata"), fields })
    }

    /// Whether this object is among those asked for.
    pub(crate) fn selects(&self, object: &Value) -> bool {
        self.fields.iter().all(|field| {
            let found = object.pointer(&field.pointer).and_then(Value::as_str).unwrap_or_default();
            (found == field.value) == field.equal
        })
    }

    /// As much of the object as was asked for.
    pub(crate) fn of(&self, mut object: Value) -> Value {
        if !self.metadata_only {
            return object;
        }
        json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"].take(),
        })
    }
}

impl FieldIs {
    fn parse(term: &str) -> Result<Self, Refusal> {
        let parts = term.split_once("!=").map(|(field, value)| (field, value, false));
        let parts = parts.or_else(|| term.split_once('=').map(|(field, value)| (field, value, true)));
        let Some((field, value, equal)) = parts else {
            return Err(Refusal::bad_request(format!("invalid field selector: {term}")));
        };
        let value = value.trim_start_matches('=').to_owned();
        Ok(Self { pointer: format!("/{}", field.replace('.', "/")), value, equal })
    }
}
