module haneul.dev/components/flannel

go 1.26.0

tool github.com/flannel-io/flannel

require github.com/flannel-io/flannel v0.28.10
