// Package drivers shows what a program adds to a stock client to have contexts and
// siblings: the shopping cart of the Dynamo paper (§4.4) over VCTX, in Go here and in
// Python and JavaScript beside it. All three read each other's carts.
//
// A cart is what was added, each under a number of its own, and the numbers that were
// removed. Siblings are joined by union, so no added item is lost; what was removed stays
// removed, for a removal names exactly what it saw.
//
// A write that the client sends again does no harm, nor does a removal that is called again
// after an error. An addition does: each call draws a new number, so the item may be there
// twice. What was removed is never forgotten, and a value has at most 1 MiB: begin a new
// cart with each order.
package drivers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/redis/go-redis/v9"
)

// Cart is a shopping cart that lies at Key.
type Cart struct {
	Client redis.UniversalClient
	Key    string
}

// content is a sibling, and the union of some.
type content struct {
	Added   map[string]string `json:"added"` // number to item
	Removed []string          `json:"removed"`
}

func (c Cart) read(ctx context.Context) (token any, all content, err error) {
	all = content{map[string]string{}, []string{}}
	reply, err := c.Client.Do(ctx, "VCTX.GET", c.Key).Slice()
	if err != nil {
		return nil, all, err
	}
	for _, sibling := range reply[1].([]any) {
		var one content
		if err := json.Unmarshal([]byte(sibling.(string)), &one); err != nil {
			return nil, all, fmt.Errorf("cart %s: %w", c.Key, err)
		}
		maps.Copy(all.Added, one.Added)
		all.Removed = append(all.Removed, one.Removed...)
	}
	slices.Sort(all.Removed)
	all.Removed = slices.Compact(all.Removed)
	maps.DeleteFunc(all.Added, func(number, _ string) bool { return slices.Contains(all.Removed, number) })
	return reply[0], all, nil
}

func (c Cart) write(ctx context.Context, token any, all content) error {
	value, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return c.Client.Do(ctx, "VCTX.SET", c.Key, value, token).Err()
}

// Items is what is in the cart, sorted.
func (c Cart) Items(ctx context.Context) ([]string, error) {
	_, all, err := c.read(ctx)
	return slices.Sorted(maps.Values(all.Added)), err
}

// Add puts one more of an item in.
func (c Cart) Add(ctx context.Context, item string) error {
	token, all, err := c.read(ctx)
	if err != nil {
		return err
	}
	all.Added[rand.Text()] = item
	return c.write(ctx, token, all)
}

// Remove takes all of an item out that it sees; what is added meanwhile stays.
func (c Cart) Remove(ctx context.Context, item string) error {
	token, all, err := c.read(ctx)
	if err != nil {
		return err
	}
	for number, name := range all.Added {
		if name == item {
			all.Removed = append(all.Removed, number)
			delete(all.Added, number)
		}
	}
	return c.write(ctx, token, all)
}
