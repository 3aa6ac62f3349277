package main

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// Each operation from when to when: 0 is never.
func issue(call, back int64, id string, position uint64) record {
	return record{Op: "issue", Call: call, Return: back, Answer: "issued", ID: id, Position: position}
}

func renew(call, back int64, lease, id string, position uint64) record {
	return record{Op: "renew", Lease: lease, Call: call, Return: back, Answer: "issued", ID: id, Position: position}
}

func revoke(call, back int64, id, cutOff string, position uint64) record {
	return record{Op: "revoke", Call: call, Return: back, Answer: "rule", ID: id, CutOff: cutOff, Position: position}
}

func told(call, back int64, lease, answer, by string, position uint64) record {
	return record{Op: "introspect", Lease: lease, Call: call, Return: back, Answer: answer, ID: by, Position: position}
}

func refused(op string, call, back int64, lease, reason string) record {
	return record{Op: op, Lease: lease, Call: call, Return: back, Answer: "refused", Reason: reason}
}

func TestModel(t *testing.T) {
	lost := record{Op: "revoke", Call: 3}
	lostRenewal := record{Op: "renew", Lease: "b", Call: 3}
	other := func(one record) record {
		one.Owner = "another"
		return one
	}
	for name, test := range map[string]struct {
		want    porcupine.CheckResult
		history []record
	}{
		"issued, revoked, issued again": {porcupine.Ok, []record{issue(1, 2, "b", 1), told(3, 4, "b", "active", "", 1),
			revoke(5, 6, "r", "c", 2), told(7, 8, "b", "revoked", "r", 2), issue(9, 10, "d", 3), told(11, 12, "d", "active", "", 3)}},
		"active while it is revoked":             {porcupine.Ok, []record{issue(1, 2, "b", 1), revoke(3, 6, "r", "c", 2), told(4, 5, "b", "active", "", 1)}},
		"active, then revoked, while":            {porcupine.Ok, []record{issue(1, 2, "b", 1), revoke(3, 8, "r", "c", 2), told(4, 5, "b", "active", "", 1), told(6, 7, "b", "revoked", "r", 2)}},
		"revoked, then active, while":            {porcupine.Illegal, []record{issue(1, 2, "b", 1), revoke(3, 8, "r", "c", 2), told(4, 5, "b", "revoked", "r", 1), told(6, 7, "b", "active", "", 1)}},
		"active after it was revoked":            {porcupine.Illegal, []record{issue(1, 2, "b", 1), revoke(3, 4, "r", "c", 2), told(5, 6, "b", "active", "", 2)}},
		"active, as of a later position":         {porcupine.Illegal, []record{issue(1, 2, "b", 1), revoke(3, 6, "r", "c", 2), told(4, 5, "b", "active", "", 2)}},
		"active after another owner was revoked": {porcupine.Ok, []record{issue(1, 2, "b", 1), other(revoke(3, 4, "r", "c", 2)), told(5, 6, "b", "active", "", 2)}},
		"revoked by nobody":                      {porcupine.Illegal, []record{issue(1, 2, "b", 1), told(5, 6, "b", "revoked", "r", 2)}},
		"revoked by the later of two": {porcupine.Illegal, []record{issue(1, 2, "b", 1), revoke(3, 4, "r", "c", 2), revoke(5, 6, "s", "d", 3),
			told(7, 8, "b", "revoked", "s", 3)}},
		"unknown though issued":                      {porcupine.Illegal, []record{issue(1, 2, "b", 1), told(3, 4, "b", "unknown", "", 1)}},
		"issued, and not in the log":                 {porcupine.Illegal, []record{issue(1, 2, "b", 0)}},
		"issued below a cut-off":                     {porcupine.Illegal, []record{revoke(1, 2, "r", "c", 1), issue(3, 4, "b", 2)}},
		"committed after a rule that covers it":      {porcupine.Illegal, []record{issue(1, 4, "b", 2), revoke(2, 3, "r", "c", 1)}},
		"committed before it":                        {porcupine.Ok, []record{issue(1, 4, "b", 1), revoke(2, 3, "r", "c", 2)}},
		"positions against time":                     {porcupine.Illegal, []record{issue(1, 2, "b", 2), issue(3, 4, "c", 1)}},
		"positions against time, of two owners":      {porcupine.Illegal, []record{issue(1, 2, "b", 2), other(issue(3, 4, "c", 1))}},
		"a cut-off below an id that was there":       {porcupine.Illegal, []record{issue(1, 2, "b", 1), revoke(3, 4, "r", "a", 2)}},
		"a cut-off below another owner's":            {porcupine.Illegal, []record{revoke(1, 2, "r", "c", 1), other(revoke(3, 4, "s", "b", 2))}},
		"a lost revocation that was done":            {porcupine.Ok, []record{issue(1, 2, "b", 1), lost, told(5, 6, "b", "revoked", "r", 2)}},
		"a lost revocation that was not done":        {porcupine.Ok, []record{issue(1, 2, "b", 1), lost, told(5, 6, "b", "active", "", 2)}},
		"a lost revocation that was done late":       {porcupine.Ok, []record{issue(1, 2, "b", 1), lost, told(5, 6, "b", "active", "", 1), told(7, 8, "b", "revoked", "r", 2)}},
		"a lost revocation that was undone":          {porcupine.Illegal, []record{issue(1, 2, "b", 1), lost, told(5, 6, "b", "revoked", "r", 2), told(7, 8, "b", "active", "", 2)}},
		"renewed once":                               {porcupine.Ok, []record{issue(1, 2, "b", 1), renew(3, 4, "b", "c", 2), refused("renew", 5, 6, "b", "LEASE_RENEWED"), told(7, 8, "b", "expired", "", 2)}},
		"renewed twice":                              {porcupine.Illegal, []record{issue(1, 2, "b", 1), renew(3, 4, "b", "c", 2), renew(5, 6, "b", "d", 3)}},
		"renewed after it was revoked":               {porcupine.Illegal, []record{issue(1, 2, "b", 1), revoke(3, 4, "r", "c", 2), renew(5, 6, "b", "d", 3)}},
		"said to be renewed, by nobody":              {porcupine.Illegal, []record{issue(1, 2, "b", 1), refused("renew", 5, 6, "b", "LEASE_RENEWED")}},
		"said to be renewed, by a lost renewal":      {porcupine.Ok, []record{issue(1, 2, "b", 1), lostRenewal, refused("renew", 5, 6, "b", "LEASE_RENEWED")}},
		"said to have ended, by nothing":             {porcupine.Illegal, []record{issue(1, 2, "b", 1), refused("renew", 5, 6, "b", "LEASE_ENDED")}},
		"expired without a renewal":                  {porcupine.Illegal, []record{issue(1, 2, "b", 1), told(3, 4, "b", "expired", "", 1)}},
		"refused for a reason that is none of these": {porcupine.Illegal, []record{refused("issue", 1, 2, "", "INTERNAL")}},
	} {
		if got := porcupine.CheckOperationsTimeout(model, operations(test.history), longest); got != test.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
