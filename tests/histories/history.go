package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/anishathalye/porcupine"
)

// A record is one operation as its client saw it: a line of a history file.
type record struct {
	Client int    `json:"client"`
	Owner  string `json:"owner"`
	Op     string `json:"op"` // issue, renew, introspect or revoke
	// The lease that is to be renewed or introspected.
	Lease string `json:"lease,omitempty"`
	// Nanoseconds of the clients' one monotonic clock.
	Call   int64 `json:"call"`
	Return int64 `json:"return,omitempty"`
	// issued, active, revoked, expired, unknown, rule or refused; none where the answer was lost.
	Answer string `json:"answer,omitempty"`
	// Why it was refused.
	Reason string `json:"reason,omitempty"`
	// The new lease, the new rule, or the rule that ended the introspected lease.
	ID     string `json:"id,omitempty"`
	CutOff string `json:"cut_off,omitempty"`
	// Of a lease or rule, its place in the broker's own log, read afterwards; of an introspection, what it said to be as of.
	Position uint64 `json:"position,omitempty"`
}

func read(file string) ([]porcupine.Operation, error) {
	opened, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	var records []record
	lines := bufio.NewScanner(opened)
	for lines.Scan() {
		var one record
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, len(records)+1, err)
		}
		records = append(records, one)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, errors.New(file + ": no operation")
	}
	return operations(records), nil
}

// operations makes each record one of porcupine's operations. One whose answer was lost may take effect at any time after it
// was called: it stays open until the end. Of those, the ones that no other operation could tell are left out.
func operations(records []record) []porcupine.Operation {
	numbers := map[string]int{}
	answered := map[string]bool{}
	for _, one := range records {
		if one.Op == "renew" {
			if _, known := numbers[one.Lease]; !known {
				numbers[one.Lease] = len(numbers)
			}
		}
		if one.Answer == "rule" {
			answered[one.ID] = true
		}
	}
	var all []porcupine.Operation
	for _, one := range records {
		lost := one.Answer == ""
		if lost {
			if one.Op == "issue" || one.Op == "introspect" {
				continue
			}
			one.Return = math.MaxInt64
		}
		number, renewed := numbers[one.Lease]
		if !renewed {
			number = -1
		}
		all = append(all, porcupine.Operation{
			ClientId: one.Client,
			Input:    input{record: one, number: number, byUnanswered: !answered[one.ID]},
			Call:     one.Call,
			Output:   nil,
			Return:   one.Return,
		})
	}
	return all
}
