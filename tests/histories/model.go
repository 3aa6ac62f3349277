package main

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// An input is what was asked and what was answered: the model looks at both at once.
type input struct {
	record
	// Of the leases that somebody tries to renew, which; -1 for any other.
	number int
	// The rule that is told is of no revocation that was answered.
	byUnanswered bool
	// Looked at in the order of everything, not of its owner.
	whole bool
}

// A rule covers every lease of its owner up to its cut-off.
type rule struct {
	// Empty where the answer was lost: then the cut-off is the least that it can be.
	id     string
	cutOff string
}

// A state is what there is of one owner. Ids are UUIDs of version 7: their order is that of their texts.
type state struct {
	// The latest write, or what an introspection said to be as of.
	position uint64
	// The highest id of a lease.
	highest string
	rules   []rule
	// A set of numbers: the leases that another took the place of.
	renewed []uint64
}

var model = porcupine.Model{
	Partition: partition,
	Init:      func() any { return state{} },
	Step: func(at, asked, _ any) (bool, any) {
		return step(at.(state), asked.(input))
	},
	Equal: func(a, b any) bool {
		one, other := a.(state), b.(state)
		return one.position == other.position && one.highest == other.highest &&
			slices.Equal(one.rules, other.rules) && slices.Equal(one.renewed, other.renewed)
	},
	Hash:              func(at any) uint64 { return hash(at.(state)) },
	DescribeOperation: func(asked, _ any) string { return describe(asked.(input).record) },
	DescribeState:     func(at any) string { return at.(state).String() },
}

// partition gives the operations of each owner, and once more the writes of all: whose positions and cut-offs are one order.
func partition(history []porcupine.Operation) [][]porcupine.Operation {
	var parts [][]porcupine.Operation
	place := map[string]int{}
	var writes []porcupine.Operation
	for _, one := range history {
		asked := one.Input.(input)
		at, known := place[asked.Owner]
		if !known {
			at = len(parts)
			place[asked.Owner] = at
			parts = append(parts, nil)
		}
		parts[at] = append(parts[at], one)
		if asked.Answer == "issued" || asked.Answer == "rule" {
			asked.whole = true
			one.Input = asked
			writes = append(writes, one)
		}
	}
	return append(parts, writes)
}

// step says whether this can be the next thing that happens, and what there is then.
func step(at state, asked input) (bool, state) {
	switch {
	case asked.Answer == "refused":
		return refusable(at, asked), at
	case asked.Op == "issue" && asked.Answer == "issued":
		return issued(at, asked)
	case asked.Op == "renew" && asked.Answer == "issued":
		if !asked.whole && (at.covering(asked.Lease) != nil || at.isRenewed(asked.number)) {
			return false, at
		}
		ok, next := issued(at, asked)
		return ok, next.renewing(asked.number)
	case asked.Op == "renew" && asked.Answer == "":
		if at.covering(asked.Lease) != nil {
			return true, at
		}
		return true, at.renewing(asked.number)
	case asked.Op == "introspect":
		at.position = max(at.position, asked.Position)
		return introspected(at, asked), at
	case asked.Op == "revoke" && asked.Answer == "rule":
		if asked.Position <= at.position || asked.CutOff <= at.highest || asked.CutOff <= at.cutOff() {
			return false, at
		}
		at.position = asked.Position
		return true, at.with(rule{asked.ID, asked.CutOff})
	case asked.Op == "revoke" && asked.Answer == "":
		return true, at.with(rule{"", max(at.highest, at.cutOff())})
	default:
		return false, at
	}
}

// issued: a new lease is later than all there is, and nothing that is there covers it.
func issued(at state, asked input) (bool, state) {
	if asked.Position <= at.position {
		return false, at
	}
	at.position = asked.Position
	at.highest = max(at.highest, asked.ID)
	if asked.whole {
		// Those of other owners may have been drawn before a rule that is not about them.
		return true, at
	}
	return asked.ID > at.cutOff(), at
}

// introspected: covered is not active but revoked, by the earliest rule that covers it, and what is not covered is active. It
// may have ended by itself only where it was renewed (nothing else here lives shorter than a history), and then it may have
// done so before a rule covered it: time is not modelled.
func introspected(at state, asked input) bool {
	by := at.covering(asked.Lease)
	switch asked.Answer {
	case "active":
		return by == nil
	case "expired":
		return at.isRenewed(asked.number)
	case "revoked":
		return by != nil && (by.id == asked.ID || by.id == "" && asked.byUnanswered)
	default:
		return false
	}
}

// refusable: what may be refused at any time, and what only tells what there is.
func refusable(at state, asked input) bool {
	switch asked.Reason {
	case "LEASE_ENDED":
		return asked.Op == "renew" && at.covering(asked.Lease) != nil
	case "LEASE_RENEWED":
		return asked.Op == "renew" && at.isRenewed(asked.number)
	case "CLOCK_JUMPED", "DECISION_OUTRUN":
		return asked.Op == "issue" || asked.Op == "renew"
	case "NOT_READY":
		return true
	default:
		return false
	}
}

func (at state) cutOff() string {
	if len(at.rules) == 0 {
		return ""
	}
	return at.rules[len(at.rules)-1].cutOff
}

// covering gives the earliest rule that covers a lease.
func (at state) covering(lease string) *rule {
	found, _ := slices.BinarySearchFunc(at.rules, lease, func(one rule, lease string) int {
		return strings.Compare(one.cutOff, lease)
	})
	if found == len(at.rules) {
		return nil
	}
	return &at.rules[found]
}

func (at state) with(one rule) state {
	at.rules = append(slices.Clip(at.rules), one)
	return at
}

func (at state) isRenewed(number int) bool {
	return number >= 0 && number/64 < len(at.renewed) && at.renewed[number/64]&(1<<(number%64)) != 0
}

func (at state) renewing(number int) state {
	renewed := make([]uint64, max(len(at.renewed), number/64+1))
	copy(renewed, at.renewed)
	renewed[number/64] |= 1 << (number % 64)
	at.renewed = renewed
	return at
}

var seed = maphash.MakeSeed()

func hash(at state) uint64 {
	all := at.position
	for _, word := range at.renewed {
		all = bits.RotateLeft64(all, 7) ^ word*0x9E3779B97F4A7C15
	}
	return all ^ maphash.String(seed, at.highest) ^ maphash.String(seed, at.cutOff())<<1 ^ uint64(len(at.rules))
}

func (at state) String() string {
	renewed := 0
	for _, word := range at.renewed {
		renewed += bits.OnesCount64(word)
	}
	return fmt.Sprintf("position %d, highest %s, %d rules up to %s, %d renewed", at.position, at.highest, len(at.rules),
		at.cutOff(), renewed)
}

func describe(one record) string {
	asked := one.Op
	if one.Lease != "" {
		asked += " " + one.Lease
	}
	answer := one.Answer
	switch one.Answer {
	case "":
		return asked + ": no answer"
	case "refused":
		answer += " " + one.Reason
	case "rule":
		answer += fmt.Sprintf(" %s up to %s", one.ID, one.CutOff)
	default:
		answer += " " + one.ID
	}
	return fmt.Sprintf("%s: %s at %d", asked, answer, one.Position)
}
