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
	explain(history, told.PartialLinearizationsOperations())
	return verdict, porcupine.VisualizePath(model, told, file+".html")
}

// explain tells, on stderr, how far porcupine came with each part, and what was answered first of all that it could not place.
func explain(history []porcupine.Operation, linearizations [][][]porcupine.Operation) {
	type call struct {
		client int
		at     int64
	}
	for part, all := range partition(history) {
		var best []porcupine.Operation
		for _, one := range linearizations[part] {
			if len(one) > len(best) {
				best = one
			}
		}
		if len(best) == len(all) {
			continue
		}
		at, placed := model.Init(), map[call]bool{}
		for _, one := range best {
			_, at = model.Step(at, one.Input, nil)
			placed[call{one.ClientId, one.Call}] = true
		}
		var first *porcupine.Operation
		for _, one := range all {
			if !placed[call{one.ClientId, one.Call}] && (first == nil || one.Return < first.Return) {
				first = &one
			}
		}
		fmt.Fprintf(os.Stderr, "  %d of %d placed, to %s\n  then cannot place, of client %d and owner %s: %s\n", len(best), len(all),
			model.DescribeState(at), first.ClientId, first.Input.(input).Owner, model.DescribeOperation(first.Input, nil))
	}
}
