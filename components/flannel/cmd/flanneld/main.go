// Command flanneld keeps the routes between the nodes of one cluster with
// flannel's own packages: each node's pod range is reached over VXLAN, and
// traffic that leaves the pod network is masqueraded with nftables.
//
// Upstream's command links every cloud's backend in; one of those modules is
// not served by module mirrors, so this command links the two parts that are
// needed: the Kubernetes subnet manager and the VXLAN backend.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
	log "k8s.io/klog/v2"
)

func main() {
	kubeconfig := flag.String("kubeconfig-file", "", "kubeconfig of the node")
	networkConfiguration := flag.String("net-config-path", "", "flannel's network configuration")
	address := flag.String("iface", "", "address or interface of the way to other nodes (default: the default route's)")
	masquerade := flag.Bool("ip-masq", true, "masquerade traffic that leaves the pod network")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, *kubeconfig, *networkConfiguration, *address, *masquerade)
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Errorf("flanneld: %v", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, networkConfiguration, address string, masquerade bool) error {
	subnets, err := kube.NewSubnetManager(ctx, "", kubeconfig, "flannel.alpha.coreos.com", networkConfiguration, false)
	if err != nil {
		return fmt.Errorf("subnet manager: %w", err)
	}
	config, err := subnets.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("network configuration: %w", err)
	}
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return fmt.Errorf("address family: %w", err)
	}
	external, err := ipmatch.LookupExtIface(address, "", "", stack, ipmatch.PublicIPOpts{})
	if err != nil {
		return fmt.Errorf("external interface: %w", err)
	}
	manager := backend.NewManager(ctx, subnets, external)
	driver, err := manager.GetBackend(config.BackendType)
	if err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	var group sync.WaitGroup
	network, err := driver.RegisterNetwork(ctx, &group, config)
	if err != nil {
		return fmt.Errorf("register network: %w", err)
	}
	if masquerade {
		traffic := &nftables.NFTablesManager{}
		if err := traffic.Init(ctx); err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		if err := traffic.SetupAndEnsureMasqRules(ctx, config.Network, ip.IP4Net{}, ip.IP4Net{},
			config.IPv6Network, ip.IP6Net{}, ip.IP6Net{}, network.Lease(), 60, false); err != nil {
			return fmt.Errorf("masquerading: %w", err)
		}
	}
	group.Add(1)
	go func() {
		network.Run(ctx)
		group.Done()
	}()
	if err := subnets.CompleteLease(ctx, network.Lease(), &group); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	group.Wait()
	return nil
}
