// Command etcd runs the upstream etcd server.
//
// The server module offers its main loop as a package, not as a command, so a
// command of ours calls it; nothing is added to it.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
