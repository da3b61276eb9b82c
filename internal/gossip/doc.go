// Package gossip spreads who is in the fleet and where: names, roles, labels
// and addresses. It wraps memberlist (SWIM with Lifeguard), of which nothing
// shows outside.
//
// Gossip is a hint, never an authority. Whoever holds the key can say anything
// about anyone, so what is read here may tell where to dial and whom to expect,
// and no more than that: who somebody is, a certificate says; who is connected,
// the sessions say.
//
// Call New, then Run, which binds the sockets and owns every goroutine until
// its context ends. Meanwhile Peers, Changed and Wait tell of the others.
//
// One thing outlives Run, because memberlist offers no way to wait for it: a
// probe of a peer that was under way. It ends by itself within a few probe
// intervals, finds its sockets closed, and nothing of what it says is heard.
package gossip
