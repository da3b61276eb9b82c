package plan

import (
	"cmp"
	"math"
	"slices"
)

// choice is a target that a source would probe.
type choice struct {
	target int32
	rank   int32 // its place among those of its group, from 0
	weight hash  // of the pair; the least come first
}

func (c choice) compare(d choice) int { return cmp.Compare(c.weight, d.weight) }

// choose returns the targets that a source probes, n at the most. It is
// rendezvous hashing: every pair has a weight of its own, and the lightest of
// each group are taken in turn, group by group, until there are n. So groups get
// the same, give or take one, unless they have no more; and a target that is
// added takes the place of one other, or of none. own is the target that the
// source itself is, or -1.
func (d *destinations) choose(source hash, groups []int32, own, n int) []choice {
	size := func(g int32) int { return d.groups[g].others(own) }
	rounds, left := deal(groups, size, n)
	var chosen []choice
	var more []int32 // groups that have another for the round that is not full
	for _, g := range groups {
		if size(g) > rounds {
			more = append(more, g)
		}
	}
	if left < len(more) {
		slices.SortFunc(more, func(a, b int32) int {
			return cmp.Compare(source.with(d.groups[a].hash), source.with(d.groups[b].hash))
		})
		more = more[:left]
		slices.Sort(more)
	}
	for _, g := range groups {
		depth := rounds
		if _, found := slices.BinarySearch(more, g); found {
			depth++
		}
		chosen = d.lightest(chosen, source, d.groups[g], own, min(depth, size(g)))
	}
	return chosen
}

// deal returns how many rounds there are in which every group gives a target
// while it has any, and how many targets are left for the next round.
func deal(groups []int32, size func(int32) int, n int) (rounds, left int) {
	sizes := make([]int, len(groups))
	for i, g := range groups {
		sizes[i] = size(g)
	}
	slices.Sort(sizes)
	for i, s := range sizes {
		giving := len(sizes) - i
		full := (s - rounds) * giving
		if full > n {
			return rounds + n/giving, n % giving
		}
		n -= full
		rounds = s
	}
	return rounds, 0
}

// lightest appends the n lightest of a group.
func (d *destinations) lightest(to []choice, source hash, g group, own, n int) []choice {
	if n <= 0 {
		return to
	}
	// Weights are even, so that nearly all of what is above this need not be
	// sorted; if it should be too low, there is no bound at all.
	enough := float64(n) + 4*math.Sqrt(float64(n)) + 4
	bound := hash(math.MaxUint64)
	if part := enough / float64(g.len()); part < 1 {
		bound = hash(part * math.MaxUint64)
	}
	mixed, begin := source.mixed(), len(to)
	for {
		for i := g.from; i < g.to; i++ {
			if w := (mixed ^ d.hashes[i]).mixed(); w <= bound && i != own {
				to = append(to, choice{target: int32(i), weight: w})
			}
		}
		if len(to)-begin >= n {
			break
		}
		to, bound = to[:begin], math.MaxUint64
	}
	found := to[begin:]
	slices.SortFunc(found, choice.compare)
	for i := range found[:n] {
		found[i].rank = int32(i)
	}
	return to[:begin+n]
}
