package resp

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redynamo/redynamo/resp/acl"
)

// AccessConfig is what an Access is built from; the zero value means the defaults.
type AccessConfig struct {
	// Password is requirepass; empty lets everybody in. It is that of the default
	// user where File says nothing of it.
	Password string
	// File keeps the users; nil: they last as long as the process.
	File AccessFile
	// Protected refuses clients of other machines as long as the default user lets
	// everybody in.
	Protected bool
	// Debug says who may run DEBUG.
	Debug DebugMode
}

// An AccessFile is where ACL LOAD and ACL SAVE find the users of a node.
type AccessFile interface {
	// Name is for messages.
	Name() string
	Load() (text string, err error)
	// Save replaces the file: after a crash it is the old one or the new one.
	Save(text string) error
}

// An Access is who may do what on a node: all its doors have the same, and other
// nodes have their own.
//
// Invariant: what is published in users is what every command is judged by that
// comes later. Sessions notice by the pointer.
type Access struct {
	catalog   *acl.Catalog
	file      AccessFile
	first     *acl.User // the default user where no file says otherwise
	users     atomic.Pointer[acl.Users]
	protected atomic.Bool
	debug     DebugMode
	log       accessLog

	// turn is whose it is to use the file. The disk is waited for under it alone, so that
	// what changes users in memory waits for no disk.
	turn sync.Mutex
	mu   struct {
		sync.Mutex // held over every change of users
		doors      []*Server
	}
}

// NewAccess builds an Access, and reads its file.
func NewAccess(cfg AccessConfig) (*Access, error) {
	table, err := newTable(ruled())
	if err != nil {
		return nil, fmt.Errorf("resp: %w", err)
	}
	a := &Access{file: cfg.File, debug: cmp.Or(cfg.Debug, DebugNo)}
	if !slices.Contains(debugModes[:], a.debug) {
		return nil, fmt.Errorf("resp: enable-debug-command (%q) must be one of %v", a.debug, debugModes)
	}
	if a.catalog, err = table.catalog(); err != nil {
		return nil, fmt.Errorf("resp: %w", err)
	}
	users, err := acl.NewUsers(a.catalog, passwordRules(cfg.Password)...)
	if err != nil {
		return nil, fmt.Errorf("resp: %w", err)
	}
	a.first = users.Default()
	if a.file != nil {
		text, err := a.read()
		if err == nil {
			users, err = users.Load(text, a.file.Name(), a.first)
		}
		if err != nil {
			return nil, fmt.Errorf("resp: %w", err)
		}
	}
	a.users.Store(users)
	a.protected.Store(cfg.Protected)
	a.log.most.Store(defaultACLLog)
	return a, nil
}

// ruled are the commands of all doors: the users are the same at each.
func ruled() []command {
	all := commands()
	for _, c := range sentinelCommands() {
		if !slices.ContainsFunc(all, func(d command) bool { return d.name == c.name }) {
			all = append(all, c)
		}
	}
	return all
}

// catalog is what rules can speak of.
func (t *table) catalog() (*acl.Catalog, error) {
	var all []acl.Command
	for _, row := range t.rows {
		c := acl.Command{Name: row.name, Categories: row.categories, Open: row.noAuth}
		for i := range row.subcommands {
			sub := &row.subcommands[i]
			c.Subcommands = append(c.Subcommands, acl.Command{Name: sub.name, Categories: sub.categories, Open: sub.noAuth, Twin: t.dotted(row, sub)})
		}
		all = append(all, c)
	}
	return acl.NewCatalog(categoryOrder[:], all)
}

// dotted is the name of a command that a subcommand is another spelling of, or "":
// VCTX GET is VCTX.GET.
func (t *table) dotted(row, sub *command) string {
	if name := row.name + "." + sub.name; slices.ContainsFunc(t.rows, func(r *command) bool { return r.name == name }) {
		return name
	}
	return ""
}

// passwordRules make requirepass of a text.
func passwordRules(text string) []string {
	if text == "" {
		return []string{"nopass"}
	}
	return []string{"resetpass", ">" + text}
}

// attach makes a door one of those whose connections hang on the users.
func (a *Access) attach(s *Server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.doors = append(a.mu.doors, s)
}

// change replaces the users, and closes the connections that have lost theirs or may
// not hear any more what they have subscribed to.
func (a *Access) change(asking *session, next func(now *acl.Users) (*acl.Users, error)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	users, err := next(a.users.Load())
	if err != nil {
		return err
	}
	a.users.Store(users)
	for _, door := range a.mu.doors {
		for _, c := range door.clients() {
			user := c.user.Load()
			switch now := users.Find(user.Name()); {
			case user == now:
			case user.Same(now) && door.mayStay(c.sub.Load(), now):
			case asking != nil && c == asking.client:
				asking.closing = true // it gets its reply first
			default:
				c.kill()
			}
		}
	}
	return nil
}

// mayStay reports whether a user may go on hearing all that a connection hears.
func (s *Server) mayStay(sub *subscriber, user *acl.User) bool {
	if sub == nil || user.Unbound() {
		return true
	}
	if sub.monitor.Load() {
		row, _ := s.table.find([][]byte{[]byte("monitor")})
		if v, _ := user.Check(s.access.catalog, &acl.Request{ID: row.id}); v != acl.Allowed {
			return false
		}
	}
	return s.hub.mayHear(sub, user)
}

// mayHear reports whether a user may hear all that a connection has subscribed to.
func (h *Hub) mayHear(sub *subscriber, user *acl.User) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for t := range topic(topics) {
		for name := range sub.names[t] {
			if !user.MayHear([]byte(name), t == toPattern) {
				return false
			}
		}
	}
	return true
}

// setPassword is CONFIG SET requirepass: the default user's one password, or none.
func (a *Access) setPassword(asking *session, text string) error {
	return a.change(asking, func(now *acl.Users) (*acl.Users, error) {
		first, err := a.first.With(a.catalog, passwordRules(text))
		if err != nil {
			return nil, err
		}
		a.first = first // ACL LOAD does not bring the old one back
		return now.With(acl.Default, passwordRules(text))
	})
}

// An accessFault is an error in the words of Redis.
type accessFault string

func (f accessFault) Error() string { return string(f) }

const errNoAccessFile accessFault = "This Redis instance is not configured to use an ACL file. You may want to specify users via the " +
	"ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users " +
	"in the Redis configuration."

// read is the text of the file.
func (a *Access) read() (string, error) {
	if a.file == nil {
		return "", errNoAccessFile
	}
	text, err := a.file.Load()
	if err != nil {
		return "", accessFault("Error loading ACLs, opening file '" + a.file.Name() + "': " + err.Error())
	}
	return text, nil
}

// load is ACL LOAD: all of the file, or nothing.
func (a *Access) load(asking *session) error {
	a.turn.Lock()
	defer a.turn.Unlock()
	text, err := a.read()
	if err != nil {
		return err
	}
	return a.change(asking, func(now *acl.Users) (*acl.Users, error) { return now.Load(text, a.file.Name(), a.first) })
}

// save is ACL SAVE. Of two, the file has the later.
func (a *Access) save() error {
	if a.file == nil {
		return errNoAccessFile
	}
	a.turn.Lock()
	defer a.turn.Unlock()
	return a.file.Save(a.users.Load().Text())
}

// errProtected is what protected mode says to clients of other machines.
const errProtected = "DENIED redynamo is running in protected mode because protected mode is enabled and no password is set for the " +
	"default user. In this mode connections are only accepted from the loopback interface. To let other machines in, do one of these: " +
	"1) give the default user a password: start the node with '--requirepass', or send 'CONFIG SET requirepass' over loopback, which " +
	"holds until it ends; 2) if nobody but your own machines can reach this port, start the node with '--protected-mode=no', or send " +
	"'CONFIG SET protected-mode no' over loopback, which holds until it ends."

// shuts reports whether protected mode keeps a client out.
func (a *Access) shuts(client net.Addr) bool {
	if !a.protected.Load() || !a.users.Load().Default().Open() {
		return false
	}
	return !isLocal(client)
}

// number is the parameter of the log's length.
func (a *Access) number() number {
	return number{"acllog-max-len", &a.log.most, 0, maxACLLog}
}

// knows reports whether there is a user of that name.
func (a *Access) knows(name []byte) bool { return a.users.Load().Find(string(name)) != nil }

// identify gives every row its place in the catalog.
func (t *table) identify(c *acl.Catalog) error {
	var errs []error
	t.each(func(row *command) {
		id, ok := c.Find(row.full)
		if !ok {
			errs = append(errs, fmt.Errorf("command %q is not in the catalog", row.full))
		}
		row.id = id
	})
	return errors.Join(errs...)
}

// accessOf is what flags of a key specification say is done with the key.
func accessOf(flags []string) (access acl.Access) {
	for _, f := range flags {
		switch f {
		case "access":
			access |= acl.Read
		case "insert", "update", "delete":
			access |= acl.Write
		}
	}
	return access
}

// touches lists the keys of a request, with what is done with each.
func (c *command) touches(args [][]byte) []acl.Key {
	if slices.Contains(c.keySpec, "not_key") {
		return nil
	}
	flags := c.keySpec
	if c.keyFlags != nil {
		flags = c.keyFlags(args)
	}
	var keys []acl.Key
	for n, i := range c.keyPositions(args) {
		if n == 1 && len(c.secondSpec) > 0 {
			flags = c.secondSpec
		}
		keys = append(keys, acl.Key{Name: args[i], Access: accessOf(flags), At: i})
	}
	return keys
}

// channelArgs says which arguments are channels.
type channelArgs uint8

const (
	noChannel channelArgs = iota
	oneChannel
	allChannels
	allPatterns
)

// channelsIn lists the channels that a request speaks to or wants to hear.
func (c *command) channelsIn(args [][]byte) []acl.Channel {
	var list []acl.Channel
	for i := 1; i < len(args) && c.channels != noChannel; i++ {
		list = append(list, acl.Channel{Name: args[i], Pattern: c.channels == allPatterns, At: i})
		if c.channels == oneChannel {
			break
		}
	}
	return list
}
