package resp

// A Server is one door of a node.
type Server struct {
	cfg Config
}
