// Package authority is the fleet's own CA, in a folder. It signs certificates
// for keys that others made, and gossip announcements; whom it signs for is
// decided elsewhere. Call Open, then Issue as often as wanted; Source is the
// controller's own certificate.
//
// # What is on disk
//
//	root.crt          the root's certificate: ten years
//	root.key          its key, needed once or twice a year; README says where to put it
//	intermediate.pem  certificate and key of what signs every day: a year
//	announce.key      the Ed25519 key for the gossip
//
// The folder appears complete or not at all. Half-way through its year the
// intermediate is replaced, provided that root.key is there; if it is not,
// nothing happens but warnings, until the year is over. An intermediate that has
// been replaced stays good for what it signed.
//
// # How long certificates last
//
// Those of agents and controllers a day: they are renewed without anybody's
// doing. Those of people 90 days, unless asked otherwise, for they are renewed by
// hand; all are checked against the registry with every message besides. None
// outlasts the intermediate that signed it.
package authority
