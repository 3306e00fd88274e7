package resp

func serverCommands() []command { return nil }
