package resp

func connectionCommands() []command { return nil }
