// Package gossip spreads who is in the fleet and where: names, roles, labels
// and addresses. It wraps memberlist (SWIM with Lifeguard), of which nothing
// shows outside.
//
// Gossip is a hint, never an authority. It may tell where to dial and whom to
// expect, and no more than that: who somebody is, a certificate says; who is
// connected, the sessions say.
//
// All that is said is encrypted with the fleet's Keys. Whoever holds them is
// still not believed: what a member tells of itself is an Announcement, which a
// controller has signed for its name and its address until some time, and which
// everybody checks before use. A key holder can call others dead, or drown out
// their news with numbers that memberlist takes for later; it cannot invent,
// move or change anybody.
//
// Call New, then Run, which binds the sockets and owns every goroutine until
// its context ends. Addr then tells the address that Announce is to sign, and
// SetAnnouncement takes the outcome. Before that a member only listens: it
// learns of the others, none of whom lists it. Peers, Changed and Wait tell of
// the others; SetKeys and SetTrusted change what secures all this while it runs.
//
// One thing outlives Run, because memberlist offers no way to wait for it: a
// probe of a peer that was under way. It ends by itself within a few probe
// intervals, finds its sockets closed, and nothing of what it says is heard.
package gossip
