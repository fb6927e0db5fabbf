module netvmd

go 1.23.0
