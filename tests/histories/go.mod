// The checker of histories that tests/e2e/tests/histories records: see build.
module dayfly.dev/tests/histories

go 1.26.0

require github.com/anishathalye/porcupine v1.3.1
