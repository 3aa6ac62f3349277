//! What is wrong with a policy object, and where.

use std::fmt;

/// Something wrong with one object or file. It never stops the other objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, relative to the folder.
    pub file: String,
    /// The line, from 1; 0 where the problem is the file itself.
    pub line: u64,
    /// The column, from 1; 0 where the problem is the file itself.
    pub column: u64,
    /// Which object, such as `Grant payments/orders`; none where the document does not say.
    pub object: Option<String>,
    /// What to change.
    pub message: String,
    /// What it means for the object.
    pub severity: Severity,
}

/// What a problem means for its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// What the problem is about grants nothing.
    Error,
    /// The object holds, but not all of it can take effect.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// `FILE:LINE:COLUMN: error: Grant payments/orders: MESSAGE`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}: ", self.severity.name())?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.message)
    }
}
