package resp

func stringCommands() []command { return nil }
func keyCommands() []command    { return nil }
func vctxCommands() []command   { return nil }
