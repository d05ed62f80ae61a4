// Command await-connection becomes another program as soon as one of the given
// addresses accepts a TCP connection, or when it has waited long enough.
//
//	await-connection -within 30s 10.0.0.7:2379 10.0.0.8:2379 -- program argument ...
//
// A client that fails to connect once often backs off for a second or more
// although what it needs is there a moment later. The program is started in any
// case: saying what is wrong when nobody ever answers is its own affair.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

const (
	interval = 20 * time.Millisecond
	// A packet that a firewall swallows must not cost the whole wait.
	attempt = 500 * time.Millisecond
)

func main() {
	within := flag.Duration("within", 30*time.Second, "how long to wait before the program is started anyway")
	flag.Parse()
	if err := run(*within, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "await-connection:", err)
		os.Exit(2)
	}
}

func run(within time.Duration, arguments []string) error {
	separator := slices.Index(arguments, "--")
	if separator < 1 || separator == len(arguments)-1 {
		return errors.New("usage: await-connection [-within DURATION] HOST:PORT ... -- PROGRAM [ARGUMENT ...]")
	}
	addresses, command := arguments[:separator], arguments[separator+1:]
	program, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	await(addresses, time.Now().Add(within))
	return syscall.Exec(program, command, os.Environ())
}

func await(addresses []string, deadline time.Time) {
	for time.Now().Before(deadline) {
		for _, address := range addresses {
			if connection, err := net.DialTimeout("tcp", address, attempt); err == nil {
				connection.Close()
				return
			}
		}
		time.Sleep(interval)
	}
}
