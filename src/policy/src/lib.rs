//! Owner, Target and Grant: located YAML, decide, explain.
