package rawsock

// StampingDevice is a network device, as far as its own stamps go.
type StampingDevice struct {
	Name string
	// Clock is the number of its hardware clock (PHC), which several ports of one
	// card may share; -1 if it has none.
	Clock int
	// Offered says that it can stamp every packet, both ways.
	Offered bool
	// On says that somebody has it do so. Synmesh never does: the setting is
	// the whole device's, and others such as a PTP daemon depend on it.
	On bool
}
