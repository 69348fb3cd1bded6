"""What the author of a driver reads, in this order.

`driver`: how a driver is announced and opened. `broker`: the contract. `messages`: arguments and answers.
`record`: the data of a job and the table of status changes. `lifecycle`: how one record becomes the next.
`naming` and `matching`: the meaning of queue names and filters. `codec`: storable values.
`pair`: the contracts of a queue and a store that together make a broker.
"""
