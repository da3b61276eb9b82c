// Package metrics counts for monitoring: what the controller does, and what was
// measured, for each pair of groups of agents and never for each pair of agents, so
// that the number of series has a bound. docs/metrics.md lists all of it.
//
// Begin with New, then Run, which follows what is stored. Handler serves the numbers to
// Prometheus; with Config.OTLP they are pushed to a collector, too.
package metrics
