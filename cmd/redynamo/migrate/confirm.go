package migrate

import (
	"context"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// confirm deals with keys that are there although a write of ours may be why: one that
// nobody acknowledged, which one node may have, and its disk alone. What is there as it
// would be written is written once more, over what was read of it and nothing else: then W
// nodes have it, and what a client writes at that moment is kept beside it.
func (w *worker) confirm(ctx context.Context, a *attempt, there []int) error {
	reads, err := w.exec(ctx, there, func(i int) []any { return []any{"VCTX.GET", a.items[i].key} })
	if err != nil {
		return err
	}
	writes := map[int][]any{}
	var ours []int
	for n, i := range there {
		reply, err := reads[n].(*redis.Cmd).Slice()
		if err != nil && isReply(err) && strings.HasPrefix(err.Error(), unknownCommand) {
			continue // a Redis has one copy of it
		}
		if err != nil {
			if err := w.sort(a, i, err); err != nil {
				return err
			}
			continue
		}
		if words := rewrite(a.items[i], reply); words != nil {
			writes[i], ours = words, append(ours, i)
		}
	}
	cmds, err := w.exec(ctx, ours, func(i int) []any { return writes[i] })
	if err != nil {
		return err
	}
	for n, i := range ours {
		if err := w.sort(a, i, cmds[n].Err()); err != nil {
			return err
		}
	}
	return nil
}

// rewrite is the command that has an item on W nodes after VCTX.GET has answered so much;
// nil if another value is there.
func rewrite(it *item, reply []any) []any {
	if len(reply) < 2 {
		return nil
	}
	versions, _ := reply[1].([]any)
	if slices.ContainsFunc(versions, func(v any) bool { return v != string(it.value) }) {
		return nil
	}
	words := []any{"VCTX.SET", it.key, it.value, reply[0]}
	switch {
	case len(versions) > 0: // it may be a client's, with an end of its own
		return append(words, "KEEPTTL")
	case it.expireAtMS != 0:
		return append(words, "PXAT", it.expireAtMS)
	}
	return words
}
