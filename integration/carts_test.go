package integration

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/redynamo/redynamo/integration/drivers"
)

// cartItems is how many items each shopper puts in; every third goes out again.
const cartItems = 24

// pythonShopper and nodeShopper are told HOST, PORT, the key and a name.
const (
	pythonShopper = `
import sys, redis
sys.path.insert(0, "../drivers")
from cart import Cart
host, port, key, name, n = sys.argv[1:]
cart = Cart(redis.Redis(host, int(port)), key)
for i in range(int(n)):
    cart.add("%s %02d" % (name, i))
    if i % 3 == 2:
        cart.remove("%s %02d" % (name, i - 1))
`
	nodeShopper = `
import { Redis } from 'ioredis';
import { Cart } from '../drivers/cart.mjs';
const [host, port, key, name, n] = process.argv.slice(1);
const client = new Redis(Number(port), host);
const cart = new Cart(client, key);
for (let i = 0; i < Number(n); i++) {
  await cart.add(name + ' ' + String(i).padStart(2, '0'));
  if (i % 3 === 2) await cart.remove(name + ' ' + String(i - 1).padStart(2, '0'));
}
client.disconnect();
`
)

// goShopper is what the two scripts do.
func goShopper(ctx context.Context, client redis.UniversalClient, key, name string) error {
	cart := drivers.Cart{Client: client, Key: key}
	for i := range cartItems {
		if err := cart.Add(ctx, fmt.Sprintf("%s %02d", name, i)); err != nil {
			return err
		}
		if i%3 == 2 {
			if err := cart.Remove(ctx, fmt.Sprintf("%s %02d", name, i-1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// shoppers fill two carts of one key at two nodes at once, in each language, and in
// the end all three languages have one cart. Nothing added may be lost and nothing
// removed may be back, whichever node is asked.
func shoppers(t *testing.T, c *processes) {
	need(t, "node", "/usr/bin/python3")
	script := func(node int, name string, args ...string) func(key string) error {
		return func(key string) error {
			host, port, _ := strings.Cut(c.nodes[node].plain, ":")
			cmd := exec.CommandContext(t.Context(), args[0], slices.Concat(args[1:], []string{host, port, key, name, fmt.Sprint(cartItems)})...)
			cmd.Dir = "clients" // for node_modules
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		}
	}
	languages := map[string]func(node int, name string) func(key string) error{
		"go": func(node int, name string) func(string) error {
			return func(key string) error { return goShopper(t.Context(), c.client(node), key, name) }
		},
		"python": func(node int, name string) func(string) error {
			return script(node, name, "/usr/bin/python3", "-B", "-c", pythonShopper)
		},
		"node": func(node int, name string) func(string) error {
			return script(node, name, "node", "--input-type=module", "-e", nodeShopper)
		},
	}
	all := map[string]func(key string) error{}
	for language, shopper := range languages {
		two := map[string]func(string) error{"ann": shopper(0, "ann"), "bob": shopper(1, "bob")}
		t.Run(language, func(t *testing.T) { shopTogether(t, c, "cart:"+language, two) })
		all[language] = shopper(len(all), language)
	}
	t.Run("together", func(t *testing.T) { shopTogether(t, c, "cart:together", all) })
}

// shopTogether lets all shoppers go at once, and looks into the cart at every node.
func shopTogether(t *testing.T, c *processes, key string, shoppers map[string]func(key string) error) {
	done := make(chan error, len(shoppers))
	var want []string
	for name, shop := range shoppers {
		go func() { done <- shop(key) }()
		for i := range cartItems {
			if i%3 != 1 {
				want = append(want, fmt.Sprintf("%s %02d", name, i))
			}
		}
	}
	for range shoppers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	slices.Sort(want)
	for i := range c.nodes {
		got, err := drivers.Cart{Client: c.client(i), Key: key}.Items(t.Context())
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("node %d shows %q: %v\nwant %q", i, got, err, want)
		}
	}
}
