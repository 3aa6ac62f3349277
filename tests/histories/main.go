// The checker of histories: porcupine, and a model of leases and the rules that end them. docs/decisions/linearizability.md
// says what is checked.
//
//	histories FILE...   a line for each: VERDICT FILE, and how many operations it has. For one that is not linearizable, the
//	                    visualisation is beside it, FILE.html. Fails unless all are.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

// No history of a few thousand operations takes a tenth of it.
const longest = 60 * time.Second

func main() {
	status := 0
	for _, file := range os.Args[1:] {
		verdict, err := check(file)
		if err != nil {
			fmt.Fprintln(os.Stderr, "histories:", err)
			os.Exit(2)
		}
		if verdict != porcupine.Ok {
			status = 1
		}
	}
	os.Exit(status)
}

func check(file string) (porcupine.CheckResult, error) {
	history, err := read(file)
	if err != nil {
		return porcupine.Unknown, err
	}
	started := time.Now()
	verdict := porcupine.CheckOperationsTimeout(model, history, longest)
	fmt.Printf("%s %s %d operations, checked in %d ms\n", verdict, file, len(history), time.Since(started).Milliseconds())
	if verdict == porcupine.Ok {
		return verdict, nil
	}
	_, told := porcupine.CheckOperationsVerbose(model, history, longest)
	return verdict, porcupine.VisualizePath(model, told, file+".html")
}
