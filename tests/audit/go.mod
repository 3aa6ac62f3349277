// Reads the audit log as an outsider does, with Go's own implementation of signed notes and of the tree: see build.
module dayfly.dev/tests/audit

go 1.26.0

require golang.org/x/mod v0.41.0
