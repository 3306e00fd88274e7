// Package admission keeps background work out of the way of clients (paper
// §6.5): what brings hints home, compares and repairs copies, checks rows and
// drops what is left of deleted keys shares the time that clients leave.
//
// Whoever serves a client, or another node on behalf of one, reports how long it
// took with Ended: one atomic addition. Every 100 ms Run hands what ended to the
// arithmetic in share, which says which part of its time each kind of background
// work may be busy. Work asks for slices of time: with Slice, which waits, or
// with Grant, which does not and answers how much another node may send. What a
// slice took is charged when it ends; then the kind rests until its share covers
// that. It saves nothing up: what it did not use is the clients'. So work comes in
// small pieces with rests between them, if whoever asks keeps its slices short: a few
// milliseconds. Without clients everything begins at once.
//
// The kinds do not compete with each other, so none starves another, and none
// starves altogether: the share has a floor.
//
// Every method may be called from any goroutine. Requests of clients never wait
// here. Invariant: no lock is held while work runs.
package admission
