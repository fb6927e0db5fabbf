# fish completion of qvm-dom0-network-via-netvm
complete -c qvm-dom0-network-via-netvm -f
complete -c qvm-dom0-network-via-netvm -n 'not __fish_seen_subcommand_from up down' -a up -d 'Put dom0 on the network'
complete -c qvm-dom0-network-via-netvm -n 'not __fish_seen_subcommand_from up down' -a down -d 'Take that back'
complete -c qvm-dom0-network-via-netvm -n '__fish_seen_subcommand_from up' -l netvm -x -d 'The domain that has the network cards' \
    -a "(xl list 2>/dev/null | awk 'NR > 1 && \$2 > 0 {print \$1}')"
complete -c qvm-dom0-network-via-netvm -n '__fish_seen_subcommand_from up' -l address -x -d "dom0's own address"
complete -c qvm-dom0-network-via-netvm -n '__fish_seen_subcommand_from up' -l gateway -x -d "The netvm's address for its AppVMs"
complete -c qvm-dom0-network-via-netvm -l dry-run -d 'Print the steps, and take none'
complete -c qvm-dom0-network-via-netvm -l config -r -F -d 'Configuration file'
complete -c qvm-dom0-network-via-netvm -l version -d 'Print the version and exit'
complete -c qvm-dom0-network-via-netvm -l help -d 'Print help and exit'
