"""What every product stands on. It knows no product: errors, time, names, files, processes, certificates, Kubernetes."""
