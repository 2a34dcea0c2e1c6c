package engine

// roles are what this test binary can be besides a test run; see TestMain.
var roles = map[string]func(){}
